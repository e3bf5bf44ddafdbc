"""Attempts to get out of the sandbox, and the world outside that they are after.

In a command, $O is a folder outside the project, $H the home, $P the project, $PORT a port on loopback,
$ABSTRACT the name of an abstract socket, $PID a process outside. A secret is in files, variables and a
command line.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Dict, List, Mapping, Tuple

SECRET = "S3CRET-7d1c0e"
# Not a shim of pyenv, which takes long to start.
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else "python3"
PROTECTED = (".git/config", ".git/hooks", ".git/commondir", ".git/config.worktree", ".claude", ".mcp.json")


def python(text: str) -> str:
    """A command that runs a program of Python."""
    return f"{PYTHON} - <<'PYTHON'\nimport ctypes, fcntl, os, socket, sys\n" + text + "\nPYTHON"


def refused(text: str) -> str:
    """A program of Python that says how its last step went."""
    lines = "\n".join("    " + line for line in text.splitlines())
    return python(
        f"try:\n{lines}\nexcept OSError as error:\n    print('refused', error)\nelse:\n    print('escaped')"
    )


def call(number_x86: int, number_arm: int, *arguments: str) -> str:
    """A program that makes a system call."""
    given = ", ".join(arguments)
    return refused(
        f"number = {number_x86} if os.uname().machine == 'x86_64' else {number_arm}\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"if libc.syscall(number, {given}) < 0: raise OSError(ctypes.get_errno(), 'call')"
    )


# These print the secret where nothing stops them.
READS: Dict[str, str] = {
    "absolute": "cat $O/secret.txt",
    "dots": "cat ../out/secret.txt",
    "dots-absolute": 'cat "$P/../out/secret.txt"',
    "cd": "cd ..; cat out/secret.txt",
    "cd-absolute": "cd $O && cat secret.txt",
    "cd-link": "cd -P linkd && cat s.txt",
    "link": "cat link.txt",
    "link-folder": "cat linkd/s.txt",
    "new-link": "ln -s $O x; cat x/secret.txt",
    "new-link-relative": "ln -s ../out x; cat x/secret.txt",
    "link-chain": "ln -s ../out x; ln -s x y; cat y/secret.txt",
    "link-race": "for i in $(seq 30); do ln -sfn a.txt r; ln -sfn $O/secret.txt r; cat r; done",
    "hard-link": "ln $O/secret.txt x && cat x",
    "copy": "cp -r $O x; cat x/secret.txt",
    "move": "mv $O/secret.txt x; cat x",
    "tar": "tar -cf - -C $O . | tar -xOf - ./secret.txt",
    "find": "find $O -name '*.txt' -exec cat {} +",
    "grep": "grep -r S3CRET $O",
    "proc-root": "cat /proc/self/root$O/secret.txt",
    "proc-cwd": "cat /proc/self/cwd/../out/secret.txt",
    "proc-cwds": "cat /proc/[0-9]*/cwd/../out/secret.txt",
    "proc-fd": "exec 9<$O; cat /proc/self/fd/9/secret.txt",
    "descriptor": "exec 9<$O/secret.txt; cat <&9",
    "dev-fd": "cat /dev/fd/9 9<$O/secret.txt",
    "here-document": "cat <<EOF\n$(<$O/secret.txt)\nEOF",
    "here-string": 'cat <<<"$(<$O/secret.txt)"',
    "read": "read -r x <$O/secret.txt; echo $x",
    "mapfile": "mapfile x <$O/secret.txt; echo ${x[@]}",
    "source": ". $O/script.sh",
    "execute": "$O/script.sh",
    "execute-link": "ln -s $O/script.sh x; ./x",
    "xargs": "echo $O/secret.txt | xargs cat",
    "dd": "dd if=$O/secret.txt status=none",
    "sed": "sed '' $O/secret.txt",
    "awk": "awk 1 $O/secret.txt",
    "diff": "diff /dev/null $O/secret.txt",
    "python": python("print(open(os.environ['O'] + '/secret.txt').read())"),
    "python-descriptor": python(
        "there = os.open(os.environ['O'], os.O_PATH)\n"
        "print(os.read(os.open('secret.txt', os.O_RDONLY, dir_fd=there), 99))"
    ),
    "git-no-index": "git diff --no-index /dev/null $O/secret.txt",
    "git-alias": "git -c alias.x='!cat $O/secret.txt' x",
    "git-pager": "git -c core.pager='cat $O/secret.txt;true' --paginate -c color.pager=false version; "
    "GIT_PAGER_IN_USE=1 git -c alias.x='!cat $O/secret.txt' x",
    "git-fsmonitor": "git -c core.fsmonitor='cat $O/secret.txt >&2;false' status",
    "git-editor": "git -c core.editor='cat $O/secret.txt;true' -c user.name=n -c user.email=e commit "
    "--allow-empty",
    "git-include": "git -c include.path=$O/gitconfig config --list",
    "git-object": "git cat-file -p $(git hash-object -w $O/secret.txt)",
    "git-alternates": "git hash-object --stdin-paths <<<$O/secret.txt && cat $O/secret.txt",
    "git-folder": "git -C $O/repo show HEAD:secret.txt",
    "git-directory": "git --git-dir=$O/repo/.git show HEAD:secret.txt",
    "git-clone": "git clone -q $O/repo x && cat x/secret.txt",
    "git-submodule": "git -c protocol.file.allow=always submodule add $O/repo x && cat x/secret.txt",
    "home-key": "cat ~/.ssh/id_rsa",
    "home-absolute": "cat $H/.aws/credentials",
    "home-netrc": "cat ~/.netrc",
    "home-git": "git config --global --list",
    "variable": "echo $ANTHROPIC_API_KEY",
    "variables": "env",
    "exported": "export -p",
    "environ": "cat /proc/self/environ",
    "environ-parent": "tr '\\0' '\\n' </proc/$PPID/environ; tr '\\0' '\\n' </proc/$$/environ",
    "command-lines": "cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
}

# These change something outside.
WRITES: Dict[str, str] = {
    "redirect": "echo x >$O/n.txt",
    "overwrite": "echo x >$O/secret.txt",
    "append": "echo x >>$O/secret.txt",
    "clobber-link": "echo x >link.txt",
    "link-folder": "echo x >linkd/n.txt",
    "dots": "echo x >../n.txt",
    "cd": "cd $O && echo x >n.txt",
    "remove": "rm $O/secret.txt",
    "remove-all": "rm -rf $O/*",
    "remove-parent": 'rm -rf "$P/../out"',
    "move-in": "mv a.txt $O/",
    "move-out": "mv $O/secret.txt .",
    "rename": "mv $O/d $O/e",
    "mkdir": "mkdir $O/x",
    "chmod": "chmod 777 $O/secret.txt",
    "touch": "touch -d 2001-01-01 $O/secret.txt",
    "link": "ln -s / $O/x",
    "tee": "echo x | tee $O/n.txt",
    "dd": "dd if=a.txt of=$O/n.txt status=none",
    "sed": "sed -i s/S/T/ $O/secret.txt",
    "tar": "tar -cf x.tar a.txt && tar -xf x.tar -C $O",
    "truncate": "truncate -s 0 $O/secret.txt",
    "mktemp": "mktemp -p $O",
    "fifo": "mkfifo $O/x",
    "git-output": "echo x >>a.txt; git diff --output=$O/n.txt",
    "git-init": "git init -q $O/new",
    "git-archive": "git archive -o $O/n.tar HEAD",
    "git-bundle": "git bundle create $O/n HEAD",
    "git-push": "git push -q $O/repo HEAD:refs/heads/x",
    "git-hook": "mkdir h; echo 'echo x >$O/n.txt' >h/post-commit; chmod +x h/post-commit; "
    "git -c core.hooksPath=h -c user.name=n -c user.email=e commit -q --allow-empty -m m",
    "git-work-tree": "git --work-tree=$O checkout -f HEAD -- .",
    "python": python("open(os.environ['O'] + '/n.txt', 'w').write('x')"),
    "home": "echo x >>~/.bashrc",
    "home-key": "echo x >>$H/.ssh/authorized_keys",
    "home-folder": "mkdir -p ~/.config/autostart",
    "swap": "for i in $(seq 20); do ln -sfn . r; ln -sfn $O r; echo x >r/n.txt; done",
}

# These change what programs outside would obey later.
ORDERS: Dict[str, str] = {
    "git-config": "git config core.fsmonitor 'touch x'",
    "git-config-append": "printf '[core]\\nfsmonitor=x\\n' >>.git/config",
    "git-config-link": "ln -sf ../evil .git/config",
    "git-config-remove": "rm -f .git/config",
    "git-config-move": "echo x >e; mv -f e .git/config",
    "git-hook": "echo 'touch x' >.git/hooks/pre-commit",
    "git-hook-mode": "chmod 777 .git/hooks/pre-push",
    "git-hooks-move": "mv .git/hooks h",
    "git-move": "mv .git g && cp -r g .git && echo x >>.git/config",
    "git-remove": "rm -rf .git; git init -q",
    "git-commondir": "echo ../evil >.git/commondir",
    "git-worktree-config": "echo '[core]' >.git/config.worktree",
    "claude-settings": "echo '{}' >.claude/settings.json",
    "claude-agent": "mkdir -p .claude/agents; echo x >.claude/agents/x.md",
    "claude-move": "mv .claude c; mkdir .claude",
    "claude-remove": "rm -rf .claude",
    "mcp": "echo '{}' >.mcp.json",
    "mcp-link": "ln -sf a.txt .mcp.json",
}

# These reach a listener outside.
CONNECTS: Dict[str, str] = {
    "tcp": "echo x >/dev/tcp/127.0.0.1/$PORT",
    "tcp-name": "echo x >/dev/tcp/localhost/$PORT",
    "tcp-python": python("socket.create_connection(('127.0.0.1', int(os.environ['PORT'])), 2).send(b'x')"),
    "tcp-any-address": python("socket.create_connection(('0.0.0.0', int(os.environ['PORT'])), 2).send(b'x')"),
    "tcp-mapped": python(
        "s = socket.socket(socket.AF_INET6)\n"
        "s.connect(('::ffff:127.0.0.1', int(os.environ['PORT'])))\ns.send(b'x')"
    ),
    "unix": python("s = socket.socket(socket.AF_UNIX)\ns.connect(os.environ['O'] + '/socket')\ns.send(b'x')"),
    "unix-link": python(
        "os.symlink('../out/socket', 'x')\ns = socket.socket(socket.AF_UNIX)\ns.connect('x')\ns.send(b'x')"
    ),
    "unix-abstract": python(
        "s = socket.socket(socket.AF_UNIX)\ns.connect('\\0' + os.environ['ABSTRACT'])\ns.send(b'x')"
    ),
    "ssh-agent": python(
        "s = socket.socket(socket.AF_UNIX)\ns.connect(os.environ['SSH_AUTH_SOCK'])\ns.send(b'x')"
    ),
    "dbus": python(
        "address = os.environ['DBUS_SESSION_BUS_ADDRESS'].partition('=')[2]\n"
        "s = socket.socket(socket.AF_UNIX)\ns.connect(address)\ns.send(b'x')"
    ),
}

# These print "escaped" if they succeed, and "refused" if not.
_SHELL = "({}) 2>/dev/null && echo escaped || echo refused"
REFUSED: Dict[str, str] = {
    **{
        name: _SHELL.format(command)
        for name, command in {
            "etc": "echo x >/etc/claude-force-x",
            "etc-passwd": "echo x >>/etc/passwd",
            "etc-shadow": "cat /etc/shadow",
            "usr": "echo x >/usr/bin/claude-force-x",
            "usr-replace": "cp /bin/true /usr/bin/git",
            "lib": "touch /usr/lib/claude-force-x",
            "root": "echo x >/claude-force-x",
            "root-remove": "rm -rf /usr/bin",
            "dev": "echo x >/dev/claude-force-x",
            "sys": "ls /sys/kernel",
            "boot": "ls /boot",
            "var": "ls /var/log",
            "docker": "test -S /var/run/docker.sock -o -S /run/docker.sock",
            "dbus-system": "test -S /run/dbus/system_bus_socket",
            "containerd": "test -e /run/containerd",
            "memory": "test -e /dev/mem -o -e /dev/kmem",
            "disk": "ls /dev/[svn][dv][am]*",
            "kvm": "test -e /dev/kvm -o -e /dev/fuse -o -e /dev/vsock",
            "mknod": "mknod /tmp/x b 254 0 && head -c 1 /tmp/x",
            "mount": "mount -t tmpfs x /tmp",
            "mount-bind": "mount --bind / /tmp",
            "mount-proc": "mount -t proc x /tmp",
            "remount": "mount -o remount,rw /usr",
            "umount": "umount /tmp",
            "chroot": "chroot / true",
            "unshare-user": "unshare --user true",
            "unshare-mount": "unshare --mount true",
            "unshare-root": "unshare --map-root-user true",
            "nsenter": "nsenter --target 1 --mount true",
            "core-pattern": "echo '|/bin/x' >/proc/sys/kernel/core_pattern",
            "sysrq": "echo b >/proc/sysrq-trigger",
            "oom": "echo -1000 >/proc/self/oom_score_adj",
            "hostname": "hostname x",
            "date": "date -s 2001-01-01",
            "nice": "nice -n -5 true 2>&1 | grep -qv cannot",
            "swap": "swapoff -a && swapon -a && test -s /proc/swaps",
            "module": "insmod a.txt",
            "kernel-log": "dmesg",
            "kcore": "head -c 1 /proc/kcore",
            "other-process": "kill -0 $PID",
            "priority": "renice 19 $PID",
            "set-user-id": "cp /bin/bash x && chmod u+s x",
            "set-group-id": "cp /bin/bash x && chmod 2755 x",
            "set-user-id-install": "install -m 4755 /bin/bash x",
            "setuid": "cp /bin/bash /tmp/b && chmod 4755 /tmp/b && test $(/tmp/b -pc 'id -u') != $(id -u)",
            "privileges": "grep -q 'NoNewPrivs:.0' /proc/self/status",
            "capabilities": "grep -qE 'Cap(Eff|Prm|Bnd):.*[1-9a-f]' /proc/self/status",
            "interfaces": "test $(ls /proc/sys/net/ipv4/conf | grep -vcE '^(all|default|lo)$') -gt 0",
            "terminal": "echo x >/dev/tty",
            "core-dump": "ulimit -c unlimited; bash -c 'kill -SEGV $$'; ls core*",
            "descriptors": "ls -l /proc/self/fd | grep -vE 'pipe|/dev/null|/proc|total'",
        }.items()
    },
    "dns": refused("print(socket.gethostbyname('example.com'))"),
    "address": refused("socket.create_connection(('198.51.100.1', 80), 1)"),
    "metadata-service": refused("socket.create_connection(('169.254.169.254', 80), 1)"),
    "vsock": refused("socket.socket(40, socket.SOCK_STREAM).connect((2, 22))"),
    "packet": refused("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    "raw": refused("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    "bluetooth": refused("socket.socket(31, socket.SOCK_RAW, 1)"),
    "crypto-socket": refused("socket.socket(38, socket.SOCK_SEQPACKET)"),
    "terminal-input": refused("fcntl.ioctl(os.open('/dev/tty', os.O_RDWR), 0x5412, b'x')"),
    "keyring": call(250, 219, "0", "-3", "0"),
    "new-key": call(248, 217, "b'user'", "b'x'", "b'x'", "1", "-4"),
    "request-key": call(249, 218, "b'user'", "b'x'", "None", "-4"),
    "io-uring": call(425, 425, "8", "ctypes.create_string_buffer(120)"),
    "bpf": call(321, 280, "0", "ctypes.create_string_buffer(120)", "120"),
    "perf": call(298, 241, "ctypes.create_string_buffer(120)", "0", "-1", "-1", "0"),
    "userfaultfd": call(323, 282, "0"),
    "set-user-id-open": refused("os.close(os.open('x', os.O_CREAT | os.O_WRONLY, 0o4755))"),
    "set-user-id-temporary": refused("os.open('.', os.O_TMPFILE | os.O_WRONLY, 0o4755)"),
    "set-user-id-mknod": refused("os.mknod('x', 0o104755)"),
    "set-user-id-fchmod": refused("os.fchmod(os.open('a.txt', os.O_RDONLY), 0o6755)"),
    "openat2": call(437, 437, "-100", "b'a.txt'", "ctypes.create_string_buffer(24)", "24"),
    "pivot": call(155, 41, "b'/tmp'", "b'/tmp'"),
    "handle": call(304, 265, "-100", "ctypes.create_string_buffer(120)", "0"),
    "ptrace-outside": call(101, 117, "16", "int(os.environ.get('PID', 0)) or 99999", "0", "0"),
}


def make_template(folder: Path) -> Path:
    """Makes the files that each `World` is a copy of."""
    outside, home, project = folder / "out", folder / "home", folder / "my proj"
    names = {
        outside: ("secret.txt", "d/s.txt", "gitconfig", "script.sh"),
        home: (".ssh/id_rsa", ".aws/credentials", ".netrc", ".gitconfig", ".bashrc"),
    }
    for above, files in names.items():
        for name in files:
            _write(above / name, SECRET + "\n")
    for path in (outside / "gitconfig", home / ".gitconfig"):
        path.write_text(f"[user]\n\tname = {SECRET}\n\temail = e\n")
    (outside / "script.sh").write_text(f"#!/bin/sh\necho {SECRET}\n")
    (outside / "script.sh").chmod(0o755)
    _repository(outside / "repo", {"secret.txt": SECRET})
    _repository(project, {"a.txt": "one\n", ".claude/settings.json": '{"a": 1}', ".mcp.json": "{}"})
    _write(project / ".git" / "hooks" / "pre-push", "#!/bin/sh\n")
    return folder


def _repository(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        _write(folder / name, text)
    script = "git init -q --template= && git add -A && git -c user.name=n -c user.email=e commit -qm m"
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["bash", "-c", script], cwd=folder, env=environment, check=True, timeout=30)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class World:
    """What is outside of a project, and notices what happens to it. Context manager."""

    def __init__(self, folder: Path, template: Path) -> None:
        """`template`: what `make_template` made."""
        self.folder = folder
        self.project, self.outside, self.home = folder / "my proj", folder / "out", folder / "home"
        self.connections: List[str] = []
        self._sockets: List[socket.socket] = []
        shutil.copytree(template, folder)
        (self.project / "link.txt").symlink_to(self.outside / "secret.txt")
        (self.project / "linkd").symlink_to(self.outside / "d")

    def __enter__(self) -> "World":
        self.process = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(60) # {SECRET}"])
        address = self._listen(socket.AF_INET, ("127.0.0.1", 0))
        self.port = address[1]
        # By a short way: the address of a socket has at most 108 bytes.
        folder = os.open(self.outside, os.O_PATH)
        self._listen(socket.AF_UNIX, f"/proc/self/fd/{folder}/socket")
        os.close(folder)
        self.abstract = f"claude-force-{os.getpid()}-{id(self)}"
        self._listen(socket.AF_UNIX, "\0" + self.abstract)
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()
        self.process.kill()
        self.process.wait()

    def _listen(self, family: int, address: object) -> Tuple[str, int]:
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen(100)
        self._sockets.append(listener)
        threading.Thread(target=self._accept, args=(listener, str(address)), daemon=True).start()
        return listener.getsockname()

    def _accept(self, listener: socket.socket, name: str) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections.append(name)
            connection.close()

    def variables(self) -> Dict[str, str]:
        """What the environment of the process has that runs the agents."""
        return {
            "O": str(self.outside),
            "H": str(self.home),
            "P": str(self.project),
            "HOME": str(self.home),
            "PORT": str(self.port),
            "ABSTRACT": self.abstract,
            "PID": str(self.process.pid),
            "SSH_AUTH_SOCK": f"{self.outside}/socket",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.outside}/socket",
            **dict.fromkeys(("ANTHROPIC_API_KEY", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY"), SECRET),
        }

    def run(self, command: str) -> str:
        """Runs a command without a sandbox; returns its output."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.project,
            env={"PATH": os.environ["PATH"], **self.variables()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30,
            check=False,
        )
        return done.stdout.decode("utf-8", "replace")

    def given(self, command: str) -> str:
        """The command, with its variables set, that a sandbox does not pass on."""
        names = ("O", "H", "P", "PORT", "ABSTRACT", "PID")
        variables = self.variables()
        return "".join(f"export {name}='{variables[name]}'\n" for name in names) + command

    def state(self) -> Dict[str, str]:
        """All that is outside of the project."""
        found = _state(self.outside)
        found.update(_state(self.home))
        found[str(self.folder)] = ",".join(sorted(one.name for one in self.folder.iterdir()))
        return found

    def orders(self) -> Dict[str, str]:
        """What is protected in the project."""
        return {key: value for name in PROTECTED for key, value in _state(self.project / name).items()}

    def is_alive(self) -> bool:
        return self.process.poll() is None


def _state(path: Path) -> Dict[str, str]:
    found = {}
    for one in (path, *sorted(path.rglob("*"))):
        if not os.path.lexists(one):
            continue
        info = one.lstat()
        link = os.readlink(one) if one.is_symlink() else ""
        content = hashlib.sha256(one.read_bytes()).hexdigest() if one.is_file() and not link else ""
        # The time of a folder changes with what is in it, and a folder of git's with each lock.
        time = "" if one.is_dir() else str(info.st_mtime_ns)
        found[str(one)] = f"{oct(info.st_mode)} {time} {link} {content}"
    return found


def processes_with(word: str) -> List[int]:
    """Processes of this machine whose command line or environment has a word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if word.encode() in text and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found
