package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/template"
	"time"
)

//go:embed guide.txt
var guideText string

// readyInterval is how often the gateway is asked whether it is ready.
const readyInterval = 50 * time.Millisecond

// demo runs the services with a gateway, a child process, in front of them.
type demo struct {
	// command starts the gateway.
	command      []string
	readyURL     string
	readyTimeout time.Duration
	// ca is the file of the development CA, for the guide.
	ca             string
	stdout, stderr io.Writer
}

// run returns the gateway's exit code, when it ran; an error is why the demo could not do its work.
func (d *demo) run(s *settings, signals <-chan os.Signal) (code int, err error) {
	b, err := start(s)
	if err != nil {
		return 1, err
	}
	// The services outlive the gateway, so that requests in progress can end.
	defer func() {
		if err := b.stop(); err != nil {
			fmt.Fprintln(d.stderr, "bookinfo:", err)
		}
	}()

	cmd := exec.Command(d.command[0], d.command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, d.stdout, d.stderr
	// A process group of its own: Ctrl-C reaches the gateway once, from here, and not a second time from the terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("gateway: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()

	ctx, cancel := context.WithTimeoutCause(context.Background(), d.readyTimeout,
		fmt.Errorf("gateway: %s did not answer 200 within %s: its log says why", d.readyURL, d.readyTimeout))
	defer cancel()
	return d.watch(b, cmd.Process, exited, d.awaitReady(ctx), signals)
}

// watch lives with the gateway until it ends. What must end it early (a signal, a failed service, readiness that never comes) is
// passed on to it as a signal, and then its end is awaited.
func (d *demo) watch(b *bookinfo, gateway *os.Process, exited <-chan error, ready <-chan error, signals <-chan os.Signal) (int, error) {
	var failure error
	started, stopping := false, false
	stop := func(sig os.Signal) {
		stopping = true
		b.page.close()          // open event streams would hold up the gateway's drain
		_ = gateway.Signal(sig) // fails only when it ended already, which exited tells
	}
	for {
		select {
		case sig := <-signals:
			stop(forwarded(sig))
		case err := <-b.failed:
			failure = cmp.Or(failure, err)
			stop(syscall.SIGTERM)
		case err := <-ready:
			ready = nil
			switch {
			case stopping:
			case err != nil:
				failure = err
				stop(syscall.SIGTERM)
			default:
				started = true
				d.printGuide()
			}
		case err := <-exited:
			code := exitCode(err)
			if failure == nil && !started && !stopping {
				failure = fmt.Errorf("gateway: %s ended with code %d before it was ready: its log says why", d.command[0], code)
			}
			return code, failure
		}
	}
}

// forwarded is the signal for the gateway: a closed terminal means the same as a request to stop.
func forwarded(sig os.Signal) os.Signal {
	if sig == syscall.SIGHUP {
		return syscall.SIGTERM
	}
	return sig
}

// exitCode is what a shell would say of a process that ended.
func exitCode(err error) int {
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return 0
	case !ok:
		return 1
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

// awaitReady asks readyURL until it answers 200; the channel gets nil then, or the context's cause.
func (d *demo) awaitReady(ctx context.Context) <-chan error {
	result := make(chan error, 1)
	go func() {
		client := newClient()
		defer client.CloseIdleConnections()
		tick := time.NewTicker(readyInterval)
		defer tick.Stop()
		for !isReady(ctx, client, d.readyURL) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				result <- context.Cause(ctx)
				return
			}
		}
		result <- nil
	}()
	return result
}

func isReady(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// printGuide says what to open and try. A guide that does not print is no reason to stop a gateway that serves.
func (d *demo) printGuide() {
	var out strings.Builder
	guide, err := template.New("guide").Parse(guideText)
	if err == nil {
		err = guide.Execute(&out, map[string]string{
			"Gateway": d.command[0],
			"Config":  flagValue(d.command, "config", "deploy/examples/bookinfo"),
			"State":   flagValue(d.command, "state", ".state"),
			"Admin":   strings.TrimSuffix(d.readyURL, "/ready"),
			"CA":      d.ca,
			"Audit":   fmt.Sprintf("http://127.0.0.1:%d", basePort+6),
		})
	}
	if err != nil {
		fmt.Fprintln(d.stderr, "bookinfo: guide:", err)
		return
	}
	fmt.Fprint(d.stdout, out.String())
}

// flagValue returns the value of --name in a command line, in either spelling.
func flagValue(args []string, name, fallback string) string {
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value
		}
		if arg == "--"+name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return fallback
}
