package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit code of a re-executed agent that could not become what it was to be. Nobody sees it but who reads its report as well.
const failed = 125

// Reexec tells whether the arguments make this process a container or a command in one. A program that starts containers must ask
// first thing, and call Main if it is so.
func Reexec(args []string) bool {
	return len(args) > 1 && (args[1] == initArgument || args[1] == joinArgument)
}

// Main becomes the container, or the command in one, that the arguments name. It does not return.
func Main(args []string) {
	// Namespaces, users and capabilities are a thread's; this one is kept to the end.
	runtime.LockOSThread()
	code, err := failed, error(nil)
	if args[1] == initArgument {
		err = becomeContainer()
	} else {
		code, err = joinContainer()
	}
	if err != nil {
		report := os.NewFile(reportFD, "report")
		fmt.Fprint(report, err)
		report.Close()
		code = failed
	}
	os.Exit(code)
}

// readSpec takes a specification from the agent.
func readSpec(into any) error {
	file := os.NewFile(specFD, "specification")
	defer file.Close()
	unix.CloseOnExec(reportFD)
	return json.NewDecoder(file).Decode(into)
}

// becomeContainer returns only if it fails.
func becomeContainer() error {
	var s Spec
	if err := readSpec(&s); err != nil {
		return err
	}
	if err := s.root(); err != nil {
		return err
	}
	program, err := lookPath(s.Argv[0], s.Env)
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := s.Privileges.drop(); err != nil {
		return err
	}
	if err := syscall.Exec(program, s.Argv, s.Env); err != nil {
		return fmt.Errorf("exec %s: %w", program, err)
	}
	return nil
}

// joinContainer runs a command in the container and returns its exit code.
func joinContainer() (int, error) {
	var s joinSpec
	if err := readSpec(&s); err != nil {
		return 0, err
	}
	if err := enterNamespaces(s.Pid); err != nil {
		return 0, err
	}
	program, err := lookPath(s.Argv[0], s.Env)
	if err != nil {
		return 0, err
	}
	unix.Umask(0o022)
	if err := s.Privileges.drop(); err != nil {
		return 0, err
	}
	cmd := exec.Cmd{Path: program, Args: s.Argv, Env: s.Env, Dir: s.Dir, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: s.Terminal}
	// The agent asks this process to end when it gives up on the command.
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		<-end
		_ = cmd.Process.Kill()
	}()
	unix.Close(reportFD) // the command runs: there is nothing more to report
	err = cmd.Wait()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		return failedCommand, nil
	}
	return exitCode(cmd.ProcessState), nil
}

// failedCommand is the exit code of a command whose end could not be learned.
const failedCommand = 255

// enterNamespaces moves the calling thread into the namespaces of a container's process 1. What is forked from it is in all of them.
func enterNamespaces(pid int) error {
	// Files are opened before the mounts change, under which they could not be found any more.
	kinds := []struct {
		name string
		flag int
	}{{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}}
	fds := make([]int, len(kinds))
	for i, kind := range kinds {
		fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/"+kind.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("container is gone: %w", err)
		}
		fds[i] = fd
	}
	// A thread may change its mounts only if it shares its folder with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare folder: %w", err)
	}
	for i, kind := range kinds {
		if err := unix.Setns(fds[i], kind.flag); err != nil {
			return fmt.Errorf("enter %s namespace: %w", kind.name, err)
		}
		unix.Close(fds[i])
	}
	return nil
}

// exitCode follows the shell: 128 and the signal for a process that one ended.
func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
