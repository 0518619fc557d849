package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkApplyOneRoute changes one HTTPRoute among many, each in a file of its own, and measures the time from the file's rename to the
// first answer that shows the change. The gateway waits 10 ms for further changes before it reads a folder again; that is included.
// B/route is what a route adds to the process's memory.
func BenchmarkApplyOneRoute(b *testing.B) {
	for _, n := range []int{100, 1000, 5000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) { applyOneRoute(b, n) })
	}
}

func applyOneRoute(b *testing.B, n int) {
	dir := b.TempDir()
	port := freePort(b)
	write(b, filepath.Join(dir, "base.yaml"), base(port, originPort(b)))
	empty := start(b, dir)
	small := rss(b, empty.pid)
	empty.stop()

	for i := range n {
		write(b, filepath.Join(dir, fmt.Sprintf("route-%d.yaml", i)), route(i, 0))
	}
	g := start(b, dir)
	defer g.stop()
	perRoute := float64(rss(b, g.pid)-small) / float64(n)

	var took []time.Duration
	for version := 1; b.Loop(); version++ {
		i := version * 7919 % n
		path := filepath.Join(dir, fmt.Sprintf("route-%d.yaml", i))
		write(b, path+".new", route(i, version))
		began := time.Now()
		if err := os.Rename(path+".new", path); err != nil {
			b.Fatal(err)
		}
		want := strconv.Itoa(version)
		for answer(b, port, i) != want {
			if time.Since(began) > 10*time.Second {
				b.Fatalf("the change did not take effect in 10 s\n%s", &g.stderr)
			}
			time.Sleep(time.Millisecond)
		}
		took = append(took, time.Since(began))
	}
	b.ReportMetric(perRoute, "B/route")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-max")
}

// gatewayProcess is a running gateway.
type gatewayProcess struct {
	pid    int
	stderr bytes.Buffer
	stop   func()
}

func start(b *testing.B, dir string) *gatewayProcess {
	b.Helper()
	binary := os.Getenv("GATEHOUSE")
	if binary == "" {
		binary = filepath.Join(b.TempDir(), "gatehouse")
		if out, err := exec.Command("go", "build", "-o", binary, "gatehouse.dev/gatehouse/cmd/gatehouse").CombinedOutput(); err != nil {
			b.Fatalf("go build: %v\n%s", err, out)
		}
	}
	admin := fmt.Sprintf("127.0.0.1:%d", freePort(b))
	cmd := exec.Command(binary, "run", "--config", dir, "--admin", admin, "--access-log", "")
	g := &gatewayProcess{}
	cmd.Stderr = &g.stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	g.pid = cmd.Process.Pid
	g.stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		response, err := http.Get("http://" + admin + "/ready")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return g
			}
		}
		if time.Now().After(deadline) {
			g.stop()
			b.Fatalf("the gateway is not ready after 2 minutes\n%s", &g.stderr)
		}
	}
}

// rss returns a process's resident memory in bytes.
func rss(b *testing.B, pid int) int64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip("memory is read from /proc: ", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb << 10
		}
	}
	b.Fatal("/proc names no VmRSS")
	return 0
}

func freePort(b *testing.B) int {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// originPort starts an origin that answers with the version that the route's filter put into the request.
func originPort(b *testing.B) int {
	b.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Version"))
	}))
	b.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

func answer(b *testing.B, port, i int) string {
	b.Helper()
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/app/%d/x", port, i), nil)
	if err != nil {
		b.Fatal(err)
	}
	request.Host = fmt.Sprintf("h%d.example.com", i)
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		b.Fatalf("%v: %s %s", err, response.Status, body)
	}
	return string(body)
}

func write(b *testing.B, path, text string) {
	b.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func base(port, origin int) string {
	return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: gatehouse
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, port: %d, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: origin}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: origin-1, labels: {kubernetes.io/service-name: origin}}
addressType: IPv4
ports: [{name: http, port: %d}]
endpoints: [{addresses: [127.0.0.1]}]
`, port, origin)
}

func route(i, version int) string {
	return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route-%[1]d}
spec:
  parentRefs: [{name: edge}]
  hostnames: [h%[1]d.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /app/%[1]d}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-version, value: "%[2]d"}]}
    backendRefs: [{name: origin, port: 80}]
`, i, version)
}
