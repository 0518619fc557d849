// Package peer knows how to configure, start and reload each proxy of a benchmark. In: a Setup, which says in words that every proxy has what
// it is to do. Out: a running proxy that does it. It must not know what load comes.
//
// To add a peer, write a type with the three methods of Proxy and name it in kinds. To hand it something new, add a field to Setup and a line to
// each peer's configuration.
package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gatehouse.dev/gatehouse/bench/internal/proc"
)

// Setup is what a proxy is to do. All listen on loopback, without TLS and with TLS 1.3 at the same time, forward to one origin over a pool of
// kept connections, and tell it the client by X-Forwarded-For, -Proto and -Host.
type Setup struct {
	// Dir is a folder of the proxy's own, for its configuration and logs.
	Dir string
	// Plain and TLS are ports. TLS offers HTTP/1.1 and HTTP/2, and with H3 also HTTP/3 on UDP.
	Plain, TLS, Admin int
	H3                bool
	// Cert and Key are PEM files.
	Cert, Key string
	// Origin is the address of the origin, which speaks HTTP/1.1, or with GRPC HTTP/2 without TLS.
	Origin string
	GRPC   bool
	// Routes is the number of routes, see Route. 0 is one that takes everything.
	Routes int
	// Upgrades asks for WebSocket to pass; some pay for it with every request.
	Upgrades bool
	// LargeBodies asks for buffers that suit bodies of megabytes.
	LargeBodies bool
	// Features asks for an access log in a file, and for metrics and a trace of one request in a hundred where the proxy has them.
	Features bool
	// Collector takes traces by OTLP over HTTP: "http://host:port".
	Collector string
	// Reloads says that the configuration will change; Version is put into the requests of the first route as field X-Version.
	Reloads bool
	Version int
}

// Route says what the i-th route matches: the paths below "/r7" with the field "X-Tenant: t7". It takes the first segment off.
func Route(i int) (prefix, tenant string) { return "/r" + strconv.Itoa(i), "t" + strconv.Itoa(i%10) }

// Command is how a configured proxy is started.
type Command struct {
	Args, Env []string
}

// Need is something that not every build of a proxy can do.
type Need string

// NeedH3 is HTTP/3.
const NeedH3 Need = "HTTP/3"

// Proxy is a kind of proxy.
type Proxy interface {
	// Inspect returns the version of the program at path, and why it cannot do what it cannot.
	Inspect(path string) (version string, lacks map[Need]string, err error)
	// Configure writes the configuration into s.Dir and says how to start the program.
	Configure(p *Peer, s *Setup) (Command, error)
	// Reload makes a running proxy take over what Configure would write for s, whose Version is a new one.
	Reload(p *Peer, s *Setup, signal func(syscall.Signal) error) error
}

// Peer is a program to measure.
type Peer struct {
	// Kind is "gatehouse", "nginx" and so on, Name tells it from the others of its kind: "nginx 1.22.1".
	Kind, Name    string
	Path, Version string

	lacks map[Need]string
	proxy Proxy
}

type known struct {
	kind, variable string
	proxy          Proxy
}

// kinds are the proxies in the order of reports, each with the environment variable that names other builds.
func kinds() []known {
	return []known{
		{Ours, "BENCH_GATEHOUSE", gatehouse{}},
		{"nginx", "BENCH_NGINX", nginx{}},
		{"haproxy", "BENCH_HAPROXY", haproxy{}},
		{"caddy", "BENCH_CADDY", caddy{}},
		{"traefik", "BENCH_TRAEFIK", traefik{}},
	}
}

// Ours is the kind that the others are compared with.
const Ours = "gatehouse"

// Find returns the programs that are there. What was asked for by name and is not there is an error; notes say what else is missing.
//
// A variable holds paths or names of programs, separated by commas, each with a label in front if wanted: "new=bin/gatehouse,/tmp/old". It
// takes the place of the program of that name in PATH. only, where not empty, picks kinds.
func Find(getenv func(string) string, only []string) (peers []*Peer, notes []string, err error) {
	for _, kind := range only {
		if !slices.ContainsFunc(kinds(), func(k known) bool { return k.kind == kind }) {
			return nil, nil, fmt.Errorf("no kind of proxy is named %q", kind)
		}
	}
	for _, k := range kinds() {
		if len(only) > 0 && !slices.Contains(only, k.kind) {
			continue
		}
		list := getenv(k.variable)
		given := list != ""
		if !given {
			list = k.kind
			if k.kind == Ours {
				list = filepath.Join("bin", Ours)
			}
		}
		for entry := range strings.SplitSeq(list, ",") {
			label, path, named := strings.Cut(entry, "=")
			if !named {
				label, path = "", entry
			}
			p := &Peer{Kind: k.kind, proxy: k.proxy}
			if p.Path, err = lookPath(path); err != nil {
				if given {
					return nil, nil, fmt.Errorf("%s names %q: %w", k.variable, path, err)
				}
				notes = append(notes, fmt.Sprintf("%s is left out: %v; %s", k.kind, err, howToGet(k.kind, k.variable)))
				continue
			}
			if p.Version, p.lacks, err = k.proxy.Inspect(p.Path); err != nil {
				return nil, nil, fmt.Errorf("asking %s for its version: %w", p.Path, err)
			}
			p.Name = name(k.kind, label, p.Version, peers)
			peers = append(peers, p)
		}
	}
	return peers, notes, nil
}

// name makes a name that no other peer has.
func name(kind, label, version string, others []*Peer) string {
	n := strings.TrimSpace(kind + " " + label)
	if label == "" && kind != Ours {
		n = strings.TrimSpace(kind + " " + version)
	}
	for try, i := n, 2; ; i++ {
		if !slices.ContainsFunc(others, func(p *Peer) bool { return p.Name == try }) {
			return try
		}
		try = fmt.Sprintf("%s (%d)", n, i)
	}
}

func howToGet(kind, variable string) string {
	switch kind {
	case Ours:
		return "run make build, or set " + variable
	case "nginx", "haproxy":
		return "apt-get install --no-install-recommends " + kind + ", or set " + variable
	}
	return "set " + variable + " to its path"
}

// lookPath finds a program, also where Debian keeps servers and an ordinary user's PATH does not look.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) && !strings.Contains(name, "/") {
		if found, again := exec.LookPath("/usr/sbin/" + name); again == nil {
			return found, nil
		}
	}
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// Lacks says why this build cannot do something, "" if it can.
func (p *Peer) Lacks(n Need) string { return p.lacks[n] }

// Running is a proxy at work.
type Running struct {
	// Plain, TLS and Admin are its addresses.
	Plain, TLS, Admin string
	// Ready is how long it took from the start to the first answer.
	Ready time.Duration

	peer    *Peer
	setup   Setup
	process *proc.Process
}

// Start configures and starts the proxy on the given CPUs, and waits until it answers. Ports in s are chosen here.
func (p *Peer) Start(ctx context.Context, s Setup, cpus []int) (*Running, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	for _, port := range []*int{&s.Plain, &s.TLS, &s.Admin} {
		var err error
		if *port, err = freePort(); err != nil {
			return nil, err
		}
	}
	command, err := p.proxy.Configure(p, &s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	r := &Running{Plain: loopback(s.Plain), TLS: loopback(s.TLS), Admin: loopback(s.Admin), peer: p, setup: s}
	env := append([]string{"GOMAXPROCS=" + strconv.Itoa(max(len(cpus), 1)), "HOME=" + s.Dir}, command.Env...)
	began := time.Now()
	if r.process, err = proc.Start(proc.Spec{Path: p.Path, Args: command.Args, Env: env, CPUs: cpus, Log: filepath.Join(s.Dir, "output.log")}); err != nil {
		return nil, err
	}
	if err := r.waitReady(ctx); err != nil {
		err = fmt.Errorf("%s does not answer: %w", p.Name, errors.Join(err, r.process.Explain()))
		r.Stop()
		return nil, err
	}
	r.Ready = time.Since(began)
	return r, nil
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// freePort returns a port that is free for TCP and UDP.
func freePort() (int, error) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", loopback(port))
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return port, nil
		}
	}
	return 0, errors.New("no port is free for both TCP and UDP")
}

// waitReady asks until it is answered with 200.
func (r *Running) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	path, tenant := "/b/1", ""
	if r.setup.Routes > 0 {
		path, tenant = Route(r.setup.Routes - 1)
		path += "/b/1"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Plain+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Tenant", tenant)
	for {
		response, err := client.Do(request)
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if err == nil && response.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.Join(err, fmt.Errorf("it answers %s", response.Status))
		}
		select {
		case <-r.process.Done():
			return err
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Change gives the running proxy the next version of its configuration.
func (r *Running) Change(version int) error {
	s := r.setup
	s.Version = version
	return r.peer.proxy.Reload(r.peer, &s, r.process.Signal)
}

// Usage says what the proxy's processes have used so far.
func (r *Running) Usage() (proc.Usage, error) { return r.process.Usage() }

// Explain says whether the proxy ended by itself and what it wrote.
func (r *Running) Explain() error { return r.process.Explain() }

// Stop ends the proxy.
func (r *Running) Stop() { r.process.Stop(3 * time.Second) }

// writeFile replaces a file whole, so that a proxy that watches it never reads half of it.
func writeFile(dir, name, text string) error {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// ask runs a program to learn of it; some write to stderr.
func ask(path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %.300s", err, out)
	}
	return string(out), nil
}

// word returns what follows prefix in text, up to a blank.
func word(text, prefix string) string {
	_, rest, _ := strings.Cut(text, prefix)
	if fields := strings.Fields(rest); len(fields) > 0 {
		return fields[0]
	}
	return ""
}
