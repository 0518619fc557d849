package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a running container.
type Process struct {
	cmd        *exec.Cmd
	env        []string
	dir        string
	privileges Privileges
	done       chan struct{}
	code       int // valid once done is closed
}

// Start runs a container in the network namespace that is open as network, its output going to output, and returns once the program itself
// runs. An error says what kept it from that.
func Start(s *Spec, network *os.File, output io.Writer) (*Process, error) {
	cmd := exec.Command("/proc/self/exe", initArgument)
	cmd.Args[0] = s.Argv[0]
	cmd.Env = []string{}
	// A pipe of our own rather than one of package exec's: its reader must not hold up Wait while some grandchild keeps the output open;
	// there is none once process 1 is gone.
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if err := launch(cmd, s, network); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, env: s.Env, dir: s.Dir, privileges: s.Privileges, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // the state says it all
		p.code = exitCode(cmd.ProcessState)
		close(p.done)
	}()
	return p, nil
}

// launch starts a re-executed agent in a network namespace (nil: the agent's), hands it its specification, and waits until what it is to
// run does.
func launch(cmd *exec.Cmd, spec any, network *os.File) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	specRead, specWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer specWrite.Close()
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		specRead.Close()
		return err
	}
	defer reportRead.Close()
	cmd.ExtraFiles = []*os.File{specFD - 3: specRead, reportFD - 3: reportWrite}
	err = startIn(network, cmd)
	specRead.Close()
	reportWrite.Close()
	if err != nil {
		return err
	}
	if _, err = specWrite.Write(text); err == nil {
		specWrite.Close()
		var report []byte
		if report, err = io.ReadAll(reportRead); err == nil && len(report) > 0 {
			err = errors.New(string(report))
		}
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return err
}

// startIn starts a command from a thread that is in the network namespace. The thread is not used again: it ends with the goroutine that
// is still locked to it.
func startIn(network *os.File, cmd *exec.Cmd) error {
	if network == nil {
		return cmd.Start()
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = cmd.Start()
		}
		result <- err
	}()
	return <-result
}

// Pid is the container's process 1 as the agent sees it.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the container has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Code waits for the container's end and returns its exit code, 128 and the signal if one ended it.
func (p *Process) Code() int {
	<-p.done
	return p.code
}

// Signal sends process 1 a signal. One that ended already is left alone.
func (p *Process) Signal(signal os.Signal) { _ = p.cmd.Process.Signal(signal) }

// Stop asks the container to end, waits for up to grace, then ends it, and returns when it has ended. A closed now ends it at once.
func (p *Process) Stop(signal syscall.Signal, grace time.Duration, now <-chan struct{}) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	p.Signal(signal)
	select {
	case <-p.done:
		return
	case <-timer.C:
	case <-now:
	}
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Streams are what a command in a container reads and writes; nil ones are empty and lost.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Terminal is the terminal that the command gets instead of the others, nil for none.
	Terminal *os.File
}

// ExitError says that a command ran and failed.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("command ended with exit code %d", e.Code) }

// Exec runs a command in the container as the program's user and waits for its end, or ends it with ctx. The error is an *ExitError if it
// ran and failed.
func (p *Process) Exec(ctx context.Context, argv []string, streams Streams) error {
	if len(argv) == 0 {
		return errors.New("no command is given")
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", joinArgument)
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = streams.Out, streams.Err
	// Killed, it could not end the command any more.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	// Whoever keeps the output open after the command's end is not waited for.
	cmd.WaitDelay = time.Second
	if streams.Terminal != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = streams.Terminal, streams.Terminal, streams.Terminal
	}
	var stdin io.WriteCloser
	if streams.Terminal == nil && streams.In != nil {
		var err error
		if stdin, err = cmd.StdinPipe(); err != nil {
			return err
		}
	}
	spec := joinSpec{Pid: p.Pid(), Argv: argv, Env: p.env, Dir: p.dir, Privileges: p.privileges, Terminal: streams.Terminal != nil}
	if err := launch(cmd, &spec, nil); err != nil {
		return err
	}
	if stdin != nil {
		// The reader may block for longer than the command runs; its goroutine ends with the connection that it reads from.
		go func() {
			_, _ = io.Copy(stdin, streams.In)
			stdin.Close()
		}()
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &ExitError{Code: exitCode(exit.ProcessState)}
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}
