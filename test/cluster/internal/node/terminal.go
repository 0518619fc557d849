package node

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"gatehouse.dev/gatehouse/test/cluster/internal/container"
)

// execInTerminal runs a command on a terminal of its own and connects the terminal with the streams.
func execInTerminal(ctx context.Context, process *container.Process, command []string, in io.Reader, out io.Writer,
	resize <-chan remotecommand.TerminalSize) error {
	control, terminal, err := openTerminal()
	if err != nil {
		return fmt.Errorf("open a terminal: %w", err)
	}
	defer control.Close()
	go func() {
		for {
			select {
			case size, ok := <-resize:
				if !ok {
					return
				}
				_ = unix.IoctlSetWinsize(int(control.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
			case <-ctx.Done():
				return
			}
		}
	}()
	if in != nil {
		go func() { _, _ = io.Copy(control, in) }()
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = io.Copy(out, control) // ends with an error when the last process has closed the terminal
	}()
	err = process.Exec(ctx, command, container.Streams{Terminal: terminal})
	terminal.Close()
	<-written
	return err
}

// openTerminal returns both ends of a new terminal, see pty(7).
func openTerminal() (control, terminal *os.File, err error) {
	control, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(control.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(control.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		control.Close()
		return nil, nil, err
	}
	return control, terminal, nil
}
