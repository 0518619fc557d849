package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Spec says what to start.
type Spec struct {
	// Path is the program, Args what follows it, Env what is added to this process's environment.
	Path string
	Args []string
	Env  []string
	// CPUs are the CPUs that the process may use; none means those of this process.
	CPUs []int
	// Log is the file that gets stdout and stderr; "" drops them.
	Log string
	// Stdin and Stdout, where set, are used in place of nothing and Log.
	Stdin  io.Reader
	Stdout io.Writer
}

// Process is a running child. It leads a process group of its own, so that its workers end with it.
type Process struct {
	// PID is the child's process id.
	PID  int
	log  string
	done chan struct{}
	err  error
}

// Start starts a process. The child is told to end when this process dies, however it dies.
func Start(s Spec) (*Process, error) {
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.SysProcAttr = childAttributes()
	cmd.Stdin = s.Stdin
	if s.Log != "" {
		log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	if s.Stdout != nil {
		cmd.Stdout = s.Stdout
	}
	if err := startOn(s.CPUs, cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", s.Path, err)
	}
	p := &Process{PID: cmd.Process.Pid, log: s.Log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal to the process alone, not to its children.
func (p *Process) Signal(s syscall.Signal) error { return syscall.Kill(p.PID, s) }

// Usage says what the process and its descendants have used so far.
func (p *Process) Usage() (Usage, error) { return UsageOf(p.PID) }

// Stop asks the process to end, and after grace ends its whole group.
func (p *Process) Stop(grace time.Duration) {
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
	}
	// Also after a regular end: a master may be gone before its workers. The group's id stays ours while any member lives.
	_ = syscall.Kill(-p.PID, syscall.SIGKILL)
	<-p.done
}

// Explain says how the process ended, if it did, and what it wrote last.
func (p *Process) Explain() error {
	var list []error
	select {
	case <-p.done:
		list = append(list, fmt.Errorf("the process ended by itself: %w", orOK(p.err)))
	default:
	}
	if text, err := os.ReadFile(p.log); err == nil && len(text) > 0 {
		text = text[max(0, len(text)-2000):]
		list = append(list, fmt.Errorf("it wrote:\n%s", strings.TrimSpace(string(text))))
	}
	return errors.Join(list...)
}

func orOK(err error) error {
	if err == nil {
		return errors.New("exit code 0")
	}
	return err
}
