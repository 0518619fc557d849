package hostile

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/test/harness"
)

// peer is another proxy under comparison.
type peer struct {
	name string
	// config writes the configuration of a proxy that listens on each front, a socket's path, and forwards to the back of the same index.
	// It ends every connection by itself, soon.
	config func(fronts, backs []string) string
	// args start it in the foreground with a configuration file.
	args func(file, dir string) []string
}

func peers() []peer {
	return []peer{
		{
			name: "nginx",
			config: func(fronts, backs []string) string {
				var b strings.Builder
				b.WriteString("daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit;\nevents { worker_connections 8192; }\n" +
					"http { access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n" +
					" client_header_timeout 500ms; client_body_timeout 500ms; keepalive_timeout 250ms; large_client_header_buffers 4 64k;\n")
				for i := range fronts {
					fmt.Fprintf(&b, "server { listen unix:%s; location / { proxy_pass http://%s; proxy_http_version 1.1; proxy_set_header Connection \"\";"+
						" proxy_set_header Host $http_host; proxy_request_buffering off; } }\n", fronts[i], backs[i])
				}
				return b.String() + "}\n"
			},
			args: func(file, dir string) []string { return []string{"-p", dir, "-c", file, "-e", "stderr"} },
		},
		{
			name: "haproxy",
			config: func(fronts, backs []string) string {
				var b strings.Builder
				b.WriteString("global\n  maxconn 4000\n  tune.bufsize 65536\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 500ms\n  timeout server 5s\n" +
					"  timeout http-request 500ms\n  timeout http-keep-alive 250ms\n")
				for i := range fronts {
					fmt.Fprintf(&b, "listen l%d\n  bind unix@%s\n  server s %s\n", i, fronts[i], backs[i])
				}
				return b.String()
			},
			args: func(file, _ string) []string { return []string{"-db", "-f", file} },
		},
	}
}

// socket is where the peer listens for the requests of a case.
func (p *peer) socket(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("%d", i)) }

// start runs the proxy in front of the origins until the test ends, and returns the directory of its sockets.
func (p *peer) start(t *testing.T, backs []string) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer") // the test's own directory has a longer name than a socket may have
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	fronts := make([]string, len(backs))
	for i := range fronts {
		fronts[i] = p.socket(dir, i)
	}
	file := filepath.Join(dir, p.name+".conf")
	if err := os.WriteFile(file, []byte(p.config(fronts, backs)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(p.path(), p.args(file, dir)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // a master then ends its workers
		select {
		case <-ended:
		case <-time.After(harness.Patience):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	for end := time.Now().Add(harness.Patience); ; {
		conn, err := net.Dial("unix", fronts[len(fronts)-1])
		if err == nil {
			_ = conn.Close()
			return dir
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", p.name, err, out.String())
		case <-time.After(10 * time.Millisecond): // nothing signals that it listens
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen: %v", p.name, err)
		}
	}
}

// path returns where the proxy is installed, "" when it is not. Debian keeps servers out of an ordinary user's PATH.
func (p *peer) path() string {
	for _, name := range []string{p.name, "/usr/sbin/" + p.name} {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	return ""
}
