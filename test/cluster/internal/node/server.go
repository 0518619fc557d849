package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"gatehouse.dev/gatehouse/test/cluster/internal/container"
)

// Times that streams may be idle for, and take to be set up.
const (
	streamIdle   = 4 * time.Hour
	streamCreate = 30 * time.Second
)

// Serve answers the API server on the node's address until ctx ends: logs, commands in containers, and forwarded ports, at the paths where
// a kubelet has them. Only who shows a certificate of the cluster's authority is answered: commands run as root.
func (a *Agent) Serve(ctx context.Context) error {
	authority, err := os.ReadFile(a.CertificateAuthority)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	certificate, err := tls.LoadX509KeyPair(a.CertificateFile, a.KeyFile)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", a.serveLog)
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", a.serveExec)
	mux.HandleFunc("/portForward/{namespace}/{pod}", a.servePortForward)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: streamCreate, ErrorLog: slog.NewLogLogger(a.Logger.Handler(), slog.LevelDebug)}
	listener, err := tls.Listen("tcp", netip.AddrPortFrom(a.Ranges.Node(), ServerPort).String(), &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		NextProtos: []string{"http/1.1"}, // streams upgrade their connection
	})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// lookup finds the container of a request, and answers if there is none.
func (a *Agent) lookup(w http.ResponseWriter, r *http.Request) *task {
	p := a.find(r.PathValue("namespace"), r.PathValue("pod"))
	if p == nil {
		http.Error(w, "pod does not run on this node", http.StatusNotFound)
		return nil
	}
	for _, list := range [][]*task{p.mains, p.inits} {
		for _, t := range list {
			if t.spec.Name == r.PathValue("container") {
				return t
			}
		}
	}
	http.Error(w, "pod has no such container", http.StatusNotFound)
	return nil
}

// logQuery is what of a log is asked for (PodLogOptions).
type logQuery struct {
	follow, previous, stamps bool
	since                    time.Time
	tail                     int   // lines, -1 for all
	limit                    int64 // bytes, -1 for all
}

func parseLogQuery(q url.Values) (logQuery, error) {
	l := logQuery{tail: -1, limit: -1}
	l.follow, l.previous, l.stamps = q.Get("follow") == "true", q.Get("previous") == "true", q.Get("timestamps") == "true"
	var err error
	if s := q.Get("sinceTime"); s != "" {
		if l.since, err = time.Parse(time.RFC3339, s); err != nil {
			return l, fmt.Errorf("sinceTime: %w", err)
		}
	}
	if s := q.Get("sinceSeconds"); s != "" {
		seconds, err := strconv.Atoi(s)
		if err != nil {
			return l, fmt.Errorf("sinceSeconds: %w", err)
		}
		l.since = time.Now().Add(-time.Duration(seconds) * time.Second)
	}
	if s := q.Get("tailLines"); s != "" {
		if l.tail, err = strconv.Atoi(s); err != nil {
			return l, fmt.Errorf("tailLines: %w", err)
		}
	}
	if s := q.Get("limitBytes"); s != "" {
		if l.limit, err = strconv.ParseInt(s, 10, 64); err != nil {
			return l, fmt.Errorf("limitBytes: %w", err)
		}
	}
	return l, nil
}

func (a *Agent) serveLog(w http.ResponseWriter, r *http.Request) {
	t := a.lookup(w, r)
	if t == nil {
		return
	}
	query, err := parseLogQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	log := t.output(query.previous)
	if log == nil {
		http.Error(w, fmt.Sprintf("container %q in pod %q is waiting to start", t.spec.Name, t.pod.name), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := copyLog(r.Context(), w, log, query); err != nil && r.Context().Err() == nil {
		a.Logger.Debug("log is not served to its end", "pod", t.pod.name, "error", err)
	}
}

// copyLog writes what is asked for of a log, and goes on while it grows if that is asked for too.
func copyLog(ctx context.Context, w io.Writer, log *logFile, query logQuery) error {
	file, err := os.Open(log.path)
	if err != nil {
		return err
	}
	defer file.Close()
	if query.tail >= 0 {
		if err := seekTail(file, query.tail); err != nil {
			return err
		}
	}
	reader := bufio.NewReaderSize(file, 2*maxLine)
	for {
		more, open := log.wait() // before reading, so that nothing is missed in between
		for {
			// The log is written in whole lines.
			line, err := reader.ReadBytes('\n')
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			if line = query.cut(line); len(line) == 0 {
				continue
			}
			if _, err := w.Write(line); err != nil {
				return err
			}
			if query.limit == 0 {
				return nil
			}
		}
		if !query.follow || !open {
			return nil
		}
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cut returns what is asked for of a line, and counts it.
func (q *logQuery) cut(line []byte) []byte {
	stamp, text, _ := bytes.Cut(line, []byte(" "))
	if !q.since.IsZero() {
		if at, err := time.Parse(time.RFC3339Nano, string(stamp)); err == nil && at.Before(q.since) {
			return nil
		}
	}
	if q.stamps {
		text = line
	}
	if q.limit >= 0 {
		text = text[:min(int64(len(text)), q.limit)]
		q.limit -= int64(len(text))
	}
	return text
}

// seekTail moves to the beginning of the last lines of a file.
func seekTail(file *os.File, lines int) error {
	text, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	at := len(text)
	for ; lines > 0 && at > 0; lines-- {
		at = bytes.LastIndexByte(text[:at-1], '\n') + 1
	}
	_, err = file.Seek(int64(at), io.SeekStart)
	return err
}

func (a *Agent) serveExec(w http.ResponseWriter, r *http.Request) {
	t := a.lookup(w, r)
	if t == nil {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, executor{t}, t.pod.name, string(t.pod.uid), t.spec.Name, r.URL.Query()["command"], options,
		streamIdle, streamCreate, remotecommand.SupportedStreamingProtocols)
}

// executor runs commands in a container.
type executor struct{ task *task }

// ExecInContainer implements remotecommand.Executor.
func (e executor) ExecInContainer(ctx context.Context, _, _, _ string, command []string, in io.Reader, out, errs io.WriteCloser,
	terminal bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	process := e.task.running()
	if process == nil {
		return fmt.Errorf("container %q does not run", e.task.spec.Name)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	if terminal {
		err = execInTerminal(ctx, process, command, in, out, resize)
	} else {
		streams := container.Streams{In: in, Out: out}
		if errs != nil {
			streams.Err = errs
		}
		err = process.Exec(ctx, command, streams)
	}
	if exit, ok := errors.AsType[*container.ExitError](err); ok {
		return exitError{exit}
	}
	return err
}

// exitError is an exit code as the streaming protocol knows it.
type exitError struct{ *container.ExitError }

func (e exitError) String() string  { return e.Error() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return e.Code }

func (a *Agent) servePortForward(w http.ResponseWriter, r *http.Request) {
	p := a.find(r.PathValue("namespace"), r.PathValue("pod"))
	if p == nil {
		http.Error(w, "pod does not run on this node", http.StatusNotFound)
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, forwarder{p}, p.name, string(p.uid), options, streamIdle, streamCreate, portforward.SupportedProtocols)
}

// forwarder connects streams with a pod's ports, from within the pod's network, as a kubelet does: servers that listen on loopback only are
// reached too, and see a client of their own machine.
type forwarder struct{ pod *pod }

// PortForward implements portforward.PortForwarder.
func (f forwarder) PortForward(ctx context.Context, _ string, _ string, port int32, stream io.ReadWriteCloser) error {
	c, err := f.pod.dial(ctx, port)
	if err != nil {
		return err
	}
	defer c.Close()
	go func() {
		_, _ = io.Copy(c, stream)
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}()
	_, err = io.Copy(stream, c)
	return err
}

// dial connects to a port of the pod from within its network, or from the node's for a pod that has that.
func (p *pod) dial(ctx context.Context, port int32) (net.Conn, error) {
	p.mu.Lock()
	own := p.network
	p.mu.Unlock()
	if own != nil {
		return own.DialLoopback(ctx, port)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
}
