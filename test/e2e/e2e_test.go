package e2e

import (
	"bytes"
	"context"
	"encoding/json"
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
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// binary is the program under test, built once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gatehouse-e2e")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "gatehouse")
	out, err := exec.Command("go", "build", "-o", path, "gatehouse.dev/gatehouse/cmd/gatehouse").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func program(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// freePort returns a port that nothing listens on, chosen by the kernel.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// origin answers every request with its name.
func origin(t *testing.T, name string) (port int) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

// process is a running gateway.
type process struct {
	cmd    *exec.Cmd
	admin  string
	stderr bytes.Buffer
}

// start runs the gateway on a folder and waits until it is ready.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{admin: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	p.cmd = exec.Command(program(t), append([]string{"run", "--config", dir, "--admin", p.admin, "--access-log", ""}, args...)...)
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(20 * time.Second):
			_ = p.cmd.Process.Kill()
			<-exited
			t.Errorf("the gateway did not stop on SIGTERM\n%s", &p.stderr)
		}
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit code %d\n%s", code, &p.stderr)
		}
	})
	p.until(t, exited, func() bool {
		response, err := http.Get("http://" + p.admin + "/ready")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return p
}

// until polls a condition of another process, which sends no signal.
func (p *process) until(t *testing.T, exited <-chan struct{}, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !condition() {
		select {
		case <-exited:
			t.Fatalf("the gateway exited\n%s", &p.stderr)
		case <-deadline:
			t.Fatal("the condition did not come true in 30 s")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// get returns the status and body of a request to the gateway with this Host.
func get(t *testing.T, port int, host, path string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// fill copies a folder of testdata with the ports filled in.
func fill(t *testing.T, from string, replace ...string) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, e.Name()), strings.NewReplacer(replace...).Replace(string(text)))
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

type mistake struct {
	number               int
	file, object, reason string
}

// mistakes is where and as what each numbered mistake of testdata/mistakes must be named.
var mistakes = []mistake{
	{1, "good.yaml", "Gateway/default/twin", "HostnameConflict"},
	{2, "good.yaml", "Gateway/default/edge", "InvalidCertificateRef"},
	{3, "good.yaml", "Gateway/default/edge", "UnsupportedProtocol"},
	{4, "routes.yaml", "HTTPRoute/default/no-parent", "NoMatchingParent"},
	{5, "routes.yaml", "HTTPRoute/default/no-section", "NoMatchingParent"},
	{6, "routes.yaml", "HTTPRoute/default/bad-regex", "InvalidRule"},
	{7, "routes.yaml", "HTTPRoute/default/no-service", "BackendNotFound"},
	{8, "routes.yaml", "HTTPRoute/default/no-port", "BackendNotFound"},
	{9, "routes.yaml", "HTTPRoute/default/no-grant", "RefNotPermitted"},
	{10, "routes.yaml", "HTTPRoute/elsewhere/stranger", "NotAllowedByListeners"},
	{11, "routes.yaml", "HTTPRoute/default/bad-backend-kind", "InvalidKind"},
	{12, "routes.yaml", "HTTPRoute/default/extension", "InvalidFilter"},
	{13, "schema.yaml", "HTTPRoute/default/unknown-field", "SchemaInvalid"},
	{14, "schema.yaml", "HTTPRoute/default/bad-code", "SchemaInvalid"},
	{15, "schema.yaml", "HTTPRoute/default/cel", "SchemaInvalid"},
	{16, "schema.yaml", "HTTPRoute/default/Bad_Name", "SchemaInvalid"},
	{17, "schema.yaml", "Service/default/bad-port", "SchemaInvalid"},
	{18, "schema.yaml", "Secret/default/no-key", "SchemaInvalid"},
	{19, "schema.yaml", "Spaceship/default/enterprise", "UnknownKind"},
	{20, "schema.yaml", "HTTPRoute/default/good", "Duplicate"},
	{21, "unparsable.yaml", "", "Unparsable"},
}

// lineOf finds the line of testdata that holds the comment of a mistake.
func lineOf(t *testing.T, file string, number int) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/mistakes", file))
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		if strings.Contains(line, fmt.Sprintf("# %d:", number)) {
			return i + 1
		}
	}
	t.Fatalf("%s does not mark mistake %d", file, number)
	return 0
}

func TestValidateNamesEveryMistake(t *testing.T) {
	dir := fill(t, "testdata/mistakes", "PORT", strconv.Itoa(freePort(t)), "ORIGIN", "9")
	var out, stderr bytes.Buffer
	cmd := exec.Command(program(t), "validate", "-o", "json", dir)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("exit code %d, %v\n%s", cmd.ProcessState.ExitCode(), err, &stderr)
	}
	var problems []problem
	if err := json.Unmarshal(out.Bytes(), &problems); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	named := map[int]bool{}
	for _, p := range problems {
		i := slices.IndexFunc(mistakes, func(m mistake) bool {
			line := lineOf(t, m.file, m.number)
			return p.object() == m.object && p.Reason == m.reason && filepath.Base(p.File) == m.file && p.Line >= line-3 && p.Line <= line+1 && p.Message != ""
		})
		if i < 0 {
			t.Errorf("not a mistake: %+v", p)
			continue
		}
		named[mistakes[i].number] = true
	}
	for _, m := range mistakes {
		if !named[m.number] {
			t.Errorf("mistake %d (%s, %s, line %d) is not named", m.number, m.object, m.reason, lineOf(t, m.file, m.number))
		}
	}
}

// problem is one entry of `validate -o json`.
type problem struct {
	Kind, Namespace, Name, File, Reason, Message string
	Line                                         int
}

func (p problem) object() string {
	if p.Name == "" {
		return ""
	}
	return p.Kind + "/" + p.Namespace + "/" + p.Name
}

func TestMistakesDoNotHarmTheGood(t *testing.T) {
	port := freePort(t)
	dir := fill(t, "testdata/mistakes", "PORT", strconv.Itoa(port), "ORIGIN", strconv.Itoa(origin(t, "good")))
	p := start(t, dir)
	for host, want := range map[string]int{
		"good.example.com":       200,
		"regex.example.com":      200, // its other rule
		"no-service.example.com": 500,
		"no-port.example.com":    500,
		"no-grant.example.com":   500,
		"kind.example.com":       500,
		"extension.example.com":  500, // a filter that cannot run must not be skipped
		"unknown.example.com":    404,
	} {
		if status, _ := get(t, port, host, "/"); status != want {
			t.Errorf("%s: %d, want %d", host, status, want)
		}
	}
	response, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	metrics, _ := io.ReadAll(response.Body)
	for _, want := range []string{`reason="InvalidRule"} 1`, `reason="Unparsable"} 1`} {
		if !strings.Contains(string(metrics), want) {
			t.Errorf("/metrics does not count %s", want)
		}
	}
}

const split = `
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
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split}
spec:
  parentRefs: [{name: edge}]
  rules:
  - backendRefs: [{name: a, port: 80, weight: %d}, {name: b, port: 80, weight: %d}]
`

func service(name string, port int) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: http, port: %[2]d}]
endpoints: [{addresses: [127.0.0.1]}]
`, name, port)
}

// TestWeightChangeUnderLoad edits a weight while 100,000 requests run: none fails, and the split follows.
func TestWeightChangeUnderLoad(t *testing.T) {
	requests := int64(100_000)
	if testing.Short() {
		requests = 10_000
	}
	port := freePort(t)
	dir := t.TempDir()
	services := service("a", origin(t, "a")) + service("b", origin(t, "b"))
	file := filepath.Join(dir, "all.yaml")
	write(t, file, fmt.Sprintf(split, port, 90, 10)+services)
	start(t, dir)

	var sent, failed, first, second atomic.Int64 // first and second: answers of b in each half
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	half := make(chan struct{})
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	defer transport.CloseIdleConnections()
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for ctx.Err() == nil {
				n := sent.Add(1)
				if n > requests {
					return
				}
				if n == requests/2 {
					close(half)
				}
				body, err := fetch(ctx, transport, port)
				switch {
				case err != nil:
					failed.Add(1)
					t.Errorf("request %d: %v", n, err)
					cancel()
				case body == "b" && n < requests/2:
					first.Add(1)
				case body == "b" && n > requests*6/10: // the change has long taken effect
					second.Add(1)
				}
			}
		})
	}
	<-half
	write(t, file+".new", fmt.Sprintf(split, port, 10, 90)+services)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	workers.Wait()
	if failed.Load() > 0 {
		t.Fatalf("%d requests failed", failed.Load())
	}
	before := float64(first.Load()) / float64(requests/2)
	after := float64(second.Load()) / float64(requests*4/10)
	if before < 0.08 || before > 0.12 || after < 0.88 || after > 0.92 {
		t.Errorf("share of b: %.3f before and %.3f after, want 0.10 and 0.90", before, after)
	}
}

func fetch(ctx context.Context, transport http.RoundTripper, port int) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		return "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	return string(body), err
}

func TestExplain(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "all.yaml"), fmt.Sprintf(split, 8080, 3, 1)+service("a", 9001)+service("b", 9002))
	out, err := exec.Command(program(t), "explain", "--config", dir, "GET", "http://any.example.com:8080/x?y=1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"HTTPRoute/default/split", "75% Service/default/a/80 at 127.0.0.1:9001", "25% Service/default/b/80 at 127.0.0.1:9002", "all.yaml:"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the explanation does not say %q:\n%s", want, out)
		}
	}
	out, err = exec.Command(program(t), "explain", "--config", dir, "-o", "json", "GET", "http://any.example.com:8080/a/../../b").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var decision struct{ Refused struct{ Kind string } }
	if err := json.Unmarshal(out, &decision); err != nil || decision.Refused.Kind != "bad_path" {
		t.Errorf("%v: %s", err, out)
	}
	if out, err = exec.Command(program(t), "explain", "--config", dir, "GET", "http://any.example.com:9999/").CombinedOutput(); err == nil || !strings.Contains(string(out), "http *:8080") && !strings.Contains(string(out), "127.0.0.1:8080") {
		t.Errorf("an unknown port must fail and name the sockets there are: %v\n%s", err, out)
	}
}

// TestExtendedConnectOffered: the built program offers WebSocket over HTTP/2 (RFC 8441 3), which depends on the order in which packages
// are initialised.
func TestExtendedConnectOffered(t *testing.T) {
	port := freePort(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "all.yaml"), fmt.Sprintf(split, port, 1, 1)+service("a", 9001)+service("b", 9002))
	start(t, dir)
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	frame, err := framer.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("the first frame is %v", frame.Header())
	}
	if value, ok := settings.Value(http2.SettingEnableConnectProtocol); !ok || value != 1 {
		t.Errorf("ENABLE_CONNECT_PROTOCOL is %d, %v", value, ok)
	}
}

// TestThousandReloads edits a file 1,000 times under load. No request fails, and descriptors, goroutines and memory stay where they were.
func TestThousandReloads(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand reloads take half a minute")
	}
	port := freePort(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "all.yaml")
	services := service("a", origin(t, "a")) + service("b", origin(t, "b"))
	edit := func(version int) {
		text := fmt.Sprintf(split, port, 1+version%7, 1+version%5) + versioned(version) + services
		write(t, file+".new", text)
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	edit(0)
	p := start(t, dir)
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	var sent atomic.Int64
	var load sync.WaitGroup
	defer load.Wait()
	defer cancel()
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				if _, err := fetch(ctx, transport, port); err != nil && ctx.Err() == nil {
					t.Errorf("request %d: %v", sent.Load(), err)
					cancel()
				}
				sent.Add(1)
			}
		})
	}
	reload := func(from, to int) {
		for version := from; version < to && ctx.Err() == nil; version++ {
			edit(version)
			deadline := time.Now().Add(10 * time.Second)
			for status := 0; status != http.StatusOK; status, _ = get(t, port, "any.example.com", fmt.Sprintf("/version/%d", version)) {
				if time.Now().After(deadline) {
					t.Fatalf("version %d did not take effect\n%s", version, &p.stderr)
				}
				time.Sleep(time.Millisecond) // the gateway is another process: it can only be asked
			}
		}
	}
	reload(1, 100) // pools and buffers reach their size
	before := p.gauges(t)
	reload(100, 1100)
	after := p.gauges(t)
	t.Logf("%d requests; goroutines %.0f to %.0f, descriptors %.0f to %.0f, resident %.1f to %.1f MiB", sent.Load(),
		before["go_goroutines"], after["go_goroutines"], before["process_open_fds"], after["process_open_fds"],
		before["process_resident_memory_bytes"]/(1<<20), after["process_resident_memory_bytes"]/(1<<20))
	for name, most := range map[string]float64{"go_goroutines": 30, "process_open_fds": 30, "process_resident_memory_bytes": 48 << 20} {
		if after[name] > before[name]+most {
			t.Errorf("%s went from %.0f to %.0f", name, before[name], after[name])
		}
	}
}

// versioned is a route whose only path tells the version of the file.
func versioned(version int) string {
	return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: version}
spec:
  parentRefs: [{name: edge}]
  hostnames: [any.example.com]
  rules:
  - matches: [{path: {type: Exact, value: /version/%d}}]
    backendRefs: [{name: a, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /version}}]
    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 302}}]
`, version)
}

// gauges reads the process's own figures from /metrics.
func (p *process) gauges(t *testing.T) map[string]float64 {
	t.Helper()
	response, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if number, err := strconv.ParseFloat(value, 64); ok && err == nil {
			values[name] = number
		}
	}
	return values
}
