package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// root builds the container's file system in s.Scratch and makes it the root of this process, which is alone in its mount namespace.
//
// It is a tmpfs with the host's programs and libraries shown in it read-only, so that a shell and the usual tools are there; /etc, /var,
// /run, /tmp and the home folder are the container's own. The program of the image lies in /image:
//
//	/usr /bin /lib ...   the host's, read-only        /image/NAME   the program; /NAME is a link to it
//	/etc                 passwd, group, hosts, ...     /proc /sys    of the container's own namespaces
//
// The old root stays reachable as /.host until the pod's volumes are bound from there, because their targets ("/var/run/secrets/...")
// have to be found within the new root, links and all.
func (s *Spec) root() error {
	steps := []struct {
		name string
		do   func() error
	}{
		{"make mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mount root", func() error { return unix.Mount("tmpfs", s.Scratch, "tmpfs", 0, "mode=755,size=1g") }},
		{"folders", s.folders},
		{"system folders", s.system},
		{"/etc", s.etc},
		{"/dev", s.devices},
		{"/proc", func() error {
			return unix.Mount("proc", s.in("proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		}},
		{"/sys", s.sys},
		{"program", s.program},
		{"enter root", s.enter},
		{"volumes", s.volumes},
		{"protect /proc", s.protect},
		{"leave the host's root", leaveHost},
		{"host name", func() error { return unix.Sethostname([]byte(s.Hostname)) }},
		{"working folder", s.changeDir},
		{"make root read-only", s.readOnly},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// hostFolder is where the host's root lies while a container is made.
const hostFolder = ".host"

func (s *Spec) in(path string) string { return filepath.Join(s.Scratch, path) }

func (s *Spec) folders() error {
	for _, name := range []string{
		hostFolder, "etc", "dev", "proc", "sys", "run", "home", "root", "opt", "srv", "mnt", "image", "var/log", "var/run", "var/lib", "var/cache",
	} {
		if err := os.MkdirAll(s.in(name), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"tmp", "var/tmp"} {
		if err := os.Mkdir(s.in(name), 0o777); err != nil {
			return err
		}
		if err := os.Chmod(s.in(name), 0o777|fs.ModeSticky); err != nil {
			return err
		}
	}
	return nil
}

// system shows the host's programs. Where /bin is a link to usr/bin, it is one here too.
func (s *Spec) system() error {
	for _, name := range []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		if err := s.show("/" + name); err != nil {
			return err
		}
	}
	return nil
}

// show makes a path of the host's appear in the root at the same place, read-only; one that the host has not is left out.
func (s *Spec) show(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return os.Symlink(target, s.in(path))
	}
	return bind(path, s.in(path), info.IsDir(), true)
}

// bind shows source at target, which is made if it is missing.
func bind(source, target string, folder, readOnly bool) error {
	if err := place(target, folder); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("show %s at %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", target, err)
	}
	return nil
}

// place makes the file or folder that something is to be mounted on.
func place(target string, folder bool) error {
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	if folder {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, nil, 0o644)
}

// etc holds what names users and hosts, and what the host's programs need to start and to trust certificates.
func (s *Spec) etc() error {
	for _, path := range []string{"/etc/ssl", "/etc/ca-certificates", "/etc/pki", "/etc/alternatives", "/etc/ld.so.cache"} {
		if err := s.show(path); err != nil {
			return err
		}
	}
	files := map[string]string{
		"hosts":         s.Hosts,
		"resolv.conf":   s.Resolv,
		"hostname":      s.Hostname + "\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
		"passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nnonroot:x:65532:65532:nonroot:/home:/bin/false\n",
		"group":         "root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n",
	}
	for name, content := range files {
		if err := os.WriteFile(s.in("etc/"+name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) devices() error {
	dev := s.in("dev")
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=755,size=64k"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := bind("/dev/"+name, filepath.Join(dev, name), false, false); err != nil {
			return err
		}
	}
	for _, name := range []string{"shm", "pts"} {
		if err := os.Mkdir(filepath.Join(dev, name), 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=64m"); err != nil {
		return err
	}
	// The agent's terminals are shown, because kubectl exec opens them there.
	if err := unix.Mount("/dev/pts", filepath.Join(dev, "pts"), "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

// sys is a view of the pod's network namespace, in which this process runs.
func (s *Spec) sys() error {
	return unix.Mount("sysfs", s.in("sys"), "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
}

// program shows the image's program as /image/NAME, and as /NAME, where many images keep theirs.
func (s *Spec) program() error {
	if s.Program == "" {
		return nil
	}
	name := filepath.Base(s.Program)
	if err := bind(s.Program, s.in("image/"+name), false, true); err != nil {
		return err
	}
	if err := os.Symlink("/image/"+name, s.in(name)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (s *Spec) enter() error {
	if err := unix.PivotRoot(s.Scratch, s.in(hostFolder)); err != nil {
		return err
	}
	return os.Chdir("/")
}

func (s *Spec) volumes() error {
	for _, m := range s.Mounts {
		source := filepath.Join("/", hostFolder, m.Source)
		info, err := os.Stat(source)
		if err != nil {
			return fmt.Errorf("volume for %s: %s: %w", m.Target, m.Source, err)
		}
		if !filepath.IsAbs(m.Target) {
			return fmt.Errorf("volume for %q: mount paths are absolute", m.Target)
		}
		if err := bind(source, m.Target, info.IsDir(), m.ReadOnly); err != nil {
			return err
		}
	}
	return nil
}

// protect keeps a container that is not privileged from changing the kernel's settings.
func (s *Spec) protect() error {
	if s.Privileges.Privileged {
		return nil
	}
	return bind("/proc/sys", "/proc/sys", true, true)
}

func leaveHost() error {
	if err := unix.Unmount("/"+hostFolder, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove("/" + hostFolder)
}

func (s *Spec) changeDir() error {
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Chdir(dir)
}

func (s *Spec) readOnly() error {
	if !s.ReadOnlyRoot {
		return nil
	}
	return unix.Mount("", "/", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// lookPath finds a command in this process's root as a shell would, in the PATH of env. A name that the image's program has wins.
func lookPath(command string, env []string) (string, error) {
	if strings.Contains(command, "/") {
		return command, nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, variable := range env {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			path = value
		}
	}
	for _, dir := range append([]string{"/image"}, filepath.SplitList(path)...) {
		file := filepath.Join(dir, command)
		if info, err := os.Stat(file); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH (%s)", command, path)
}
