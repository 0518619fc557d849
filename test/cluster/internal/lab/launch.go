package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a cluster.
type Options struct {
	State State
	// Range is the /16 that the cluster takes its addresses from, "" for the first of 10.88.0.0/16 to 10.119.0.0/16 that is free.
	Range string
	// ControlPlane is the program that controlplane built.
	ControlPlane string
	// Lifeline ends the cluster when the standard input of the caller ends, which is when its other end is closed by whoever has it.
	Lifeline bool
}

// File descriptors that the supervisor inherits.
const (
	hostFD    = 3 // the host's network namespace
	optionsFD = 4 // Options as JSON
	readyFD   = 5 // closed when the cluster is ready, after a text that says why if it will never be
)

// superviseArgument is the first argument of a supervisor.
const superviseArgument = "supervise"

// namespaces are the supervisor's own.
const namespaces = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET

// Supervises tells whether the arguments make this process a supervisor.
func Supervises(args []string) bool { return len(args) > 1 && args[1] == superviseArgument }

// Up starts a cluster and returns when it is ready. The cluster goes on after the caller has ended. If one runs already with this state, that
// one is returned, unless it is to hang on a lifeline.
func Up(ctx context.Context, o Options) (*Info, error) {
	info, err := o.State.Read()
	if err == nil && o.Lifeline {
		return nil, fmt.Errorf("a cluster runs in %s already: process %d", o.State.Folder, info.Pid)
	}
	if err == nil || !errors.Is(err, ErrNotRunning) {
		return info, err
	}
	if err := o.State.clean(); err != nil {
		return nil, fmt.Errorf("remove what an earlier cluster left: %w", err)
	}
	if err := os.MkdirAll(o.State.Folder, 0o755); err != nil {
		return nil, err
	}
	cmd, ready, err := o.launch()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	pid := cmd.Process.Pid
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	problem, err := io.ReadAll(ready)
	if err == nil && len(problem) > 0 {
		err = errors.New(string(problem))
	}
	if err == nil {
		if info, err = readyInfo(o.State, pid); err == nil {
			return info, nil
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return nil, fmt.Errorf("cluster did not start: %w; see %s", err, o.State.Log())
}

// readyInfo completes what the supervisor wrote with its identity, which it cannot see from inside its namespace.
func readyInfo(state State, pid int) (*Info, error) {
	text, err := os.ReadFile(state.path("cluster.json"))
	if err != nil {
		return nil, errors.New("the supervisor ended without a word")
	}
	var info Info
	if err := json.Unmarshal(text, &info); err != nil {
		return nil, err
	}
	info.Pid = pid
	if info.Started, err = startTime(pid); err != nil {
		return nil, err
	}
	return &info, state.write(&info)
}

// launch starts the supervisor in its namespaces. The returned pipe ends when the cluster is ready or will never be.
func (o Options) launch() (*exec.Cmd, *os.File, error) {
	host, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, nil, err
	}
	defer host.Close()
	optionsRead, optionsWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer optionsRead.Close()
	defer optionsWrite.Close()
	readyRead, readyWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer readyWrite.Close()
	log, err := os.Create(o.State.Log())
	if err != nil {
		readyRead.Close()
		return nil, nil, err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", superviseArgument)
	cmd.Args[0] = "gatehouse-cluster"
	cmd.Stdout, cmd.Stderr = log, log
	if o.Lifeline {
		cmd.Stdin = os.Stdin
	}
	cmd.ExtraFiles = []*os.File{hostFD - 3: host, optionsFD - 3: optionsRead, readyFD - 3: readyWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: namespaces}
	if err := cmd.Start(); err != nil {
		readyRead.Close()
		return nil, nil, fmt.Errorf("make namespaces: %w: root's rights are needed, in a container those of a privileged one", err)
	}
	return cmd, readyRead, json.NewEncoder(optionsWrite).Encode(o)
}

// How long a supervisor may take to end before it is killed.
const downTime = 20 * time.Second

// Down ends the cluster of a state folder and removes what it left. It is no error if none runs.
func Down(state State) (wasRunning bool, err error) {
	info, err := state.Read()
	if errors.Is(err, ErrNotRunning) {
		return false, state.Remove()
	}
	if err != nil {
		return false, err
	}
	if err := end(info); err != nil {
		return true, err
	}
	return true, state.Remove()
}

// end ends a supervisor. Its process is held by a descriptor, so no other that gets its number later can be meant.
func end(info *Info) error {
	fd, err := unix.PidfdOpen(info.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open supervisor, process %d: %w", info.Pid, err)
	}
	defer unix.Close(fd)
	if started, err := startTime(info.Pid); err != nil || started != info.Started {
		return nil // it ended meanwhile
	}
	for _, signal := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end supervisor, process %d: %w", info.Pid, err)
		}
		ended, err := waitEnd(fd, downTime)
		if err != nil || ended {
			return err
		}
	}
	return fmt.Errorf("supervisor, process %d, does not end", info.Pid)
}

// waitEnd waits for the end of a process, which makes its descriptor readable.
func waitEnd(fd int, limit time.Duration) (bool, error) {
	for end := time.Now().Add(limit); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(time.Until(end), 0).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return n > 0, err
	}
}
