package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/bench/internal/load"
	"gatehouse.dev/gatehouse/bench/internal/peer"
	"gatehouse.dev/gatehouse/bench/internal/proc"
	"gatehouse.dev/gatehouse/bench/internal/report"
)

// TestMain lets the test's own binary be the origin's process, as the program is when it runs.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == originCommand {
		if err := serveOrigin(); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestScenariosAreComplete(t *testing.T) {
	metrics := map[string]bool{}
	for _, m := range report.Metrics() {
		metrics[m.Key] = true
	}
	seen := map[string]bool{}
	for _, s := range scenarios() {
		if s.name == "" || s.about == "" || s.load == nil || !metrics[s.headline] || seen[s.name] {
			t.Errorf("scenario %+v: a name of its own, a description, a load and a headline that is a metric", s)
		}
		seen[s.name] = true
		base := s.variants == nil
		for _, v := range s.variants {
			base = base || v.name == ""
		}
		if !base {
			t.Errorf("scenario %s has variants and none that they are compared with", s.name)
		}
	}
}

func TestChoose(t *testing.T) {
	tests := map[string]struct {
		want    string
		wantErr string
	}{
		"h2,h1":             {want: "h1 h2"},
		"routes-1*":         {want: "routes-10 routes-100 routes-1000 routes-10000"},
		"idle-tls, idle-*":  {want: "idle-plain idle-tls"},
		"h1,no-such":        {wantErr: `no scenario is named "no-such"`},
		"":                  {wantErr: "no scenario"},
		"[":                 {wantErr: "syntax error"},
		"body-*-tls":        {want: "body-1m-down-tls body-1m-up-tls body-100m-down-tls body-100m-up-tls"},
		"handshake-resumed": {want: "handshake-resumed"},
	}
	for names, tt := range tests {
		picked, err := choose(scenarios(), names)
		var got []string
		for _, s := range picked {
			got = append(got, s.name)
		}
		switch {
		case tt.wantErr != "":
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("%q: %v, want %q", names, err, tt.wantErr)
			}
		case err != nil || strings.Join(got, " ") != tt.want:
			t.Errorf("%q: %v, %v, want %s", names, got, err, tt.want)
		}
	}
	if all, err := choose(scenarios(), "*"); err != nil || len(all) != len(scenarios()) {
		t.Errorf("* picks %d of %d: %v", len(all), len(scenarios()), err)
	}
}

func TestRouteRequestsCoverTheTable(t *testing.T) {
	for _, n := range []int{1, 10, 100, 1000, 10_000, 50_000} {
		list, paths := routeRequests(n), map[string]bool{}
		for _, r := range list {
			paths[r.Path] = true
		}
		if want := min(n, mostRequests); len(list) != want || len(paths) != want {
			t.Errorf("%d routes: %d requests for %d of them, want %d", n, len(list), len(paths), want)
		}
		if list[0].Path != firstRoute()+"/b/130" {
			t.Errorf("the first request is for %s", list[0].Path)
		}
	}
}

func TestParseOptions(t *testing.T) {
	o, err := parse([]string{"-scenario", "h1,h2", "-rounds", "2", "-duration", "1s"})
	if err != nil || o.scenarios != "h1,h2" || o.rounds != 2 || o.measure != time.Second {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{{"-rounds", "0"}, {"-duration", "0s"}, {"h1"}, {"-warm", "-1s"}} {
		if o, err := parse(args); err == nil {
			t.Errorf("%q gives %+v", args, o)
		}
	}
}

func TestMeterTakesDifferences(t *testing.T) {
	var cpu, rest time.Duration
	m := &meter{
		usage: func() (proc.Usage, error) { cpu += time.Second; return proc.Usage{CPU: cpu, RSS: 7}, nil },
		rest:  func() (time.Duration, error) { rest += 3 * time.Second; return rest, nil }, // 3 s in 2 s
	}
	m.begin()
	m.othersFrom, m.began = time.Now().Add(-2*time.Second), time.Now().Add(-time.Second)
	m.end()
	s := toSample(load.Result{Requests: 5, P99: 2 * time.Millisecond}, m)
	if s.CPU != 1 || s.Others/s.Window < 1.3 || s.Others/s.Window > 1.5 || s.RSS != 7 || s.Requests != 5 || s.P99 != 2000 || s.Window < 1 {
		t.Errorf("%+v", s)
	}
	m.usage = func() (proc.Usage, error) { return proc.Usage{}, errors.New("gone") }
	m.end()
	if m.err == nil {
		t.Error("a proxy that is gone is no error")
	}
}

// built returns the gateway to measure, or says why there is none.
func built(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the load suite needs Linux")
	}
	if path := os.Getenv("BENCH_GATEHOUSE"); path != "" {
		return path
	}
	path := filepath.Join("..", "bin", "gatehouse")
	if _, err := exec.LookPath(path); err != nil {
		t.Skip("no gateway to measure: run make build, or set BENCH_GATEHOUSE: ", err)
	}
	return path
}

// findPeers finds the gateway and, with others, the peers that are installed.
func findPeers(t *testing.T, only ...string) []*peer.Peer {
	t.Helper()
	gateway := built(t)
	getenv := func(name string) string {
		if name == "BENCH_GATEHOUSE" {
			return gateway
		}
		return os.Getenv(name)
	}
	peers, notes, err := peer.Find(getenv, only)
	if err != nil {
		t.Fatal(err)
	}
	for _, note := range notes {
		t.Log(note)
	}
	return peers
}

func newTestHost(t *testing.T) *host {
	t.Helper()
	cpus, err := proc.CPUs()
	if err != nil {
		t.Fatal(err)
	}
	processors := runtime.GOMAXPROCS(0)
	h, err := newHost(options{ownLoad: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.close()
		runtime.GOMAXPROCS(processors)
		if err := proc.Pin(cpus); err != nil {
			t.Error(err)
		}
	})
	return h
}

// TestSmoke runs the scenario h1 for a second, with the gateway alone and the load of this program.
func TestSmoke(t *testing.T) {
	peers := findPeers(t, peer.Ours)
	chosen, err := choose(scenarios(), "h1")
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	o := options{rounds: 1, measure: time.Second, warm: 100 * time.Millisecond, out: out, ownLoad: true}
	var table, progress bytes.Buffer
	r := &runner{o: o, host: newTestHost(t), peers: peers, progress: &progress}
	if err := r.run(t.Context(), chosen, &table); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(out, "*", "results.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("results: %v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var result report.Run
	if err := json.Unmarshal(text, &result); err != nil {
		t.Fatal(err)
	}
	for _, row := range result.Scenarios[0].Rows {
		s := row.Samples[0]
		if s.Failed != "" || s.Errors > 0 || s.Requests < 100 || s.Seconds < 1 || s.CPU <= 0 || s.RSS < 1<<20 || s.P50 <= 0 {
			t.Errorf("%s: %+v", row.Label(), s)
		}
		if !strings.Contains(table.String(), row.Label()) {
			t.Errorf("the table does not name %s:\n%s", row.Label(), &table)
		}
	}
	for _, name := range []string{"report.html", "table.txt"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(files[0]), name)); err != nil {
			t.Error(err)
		}
	}
}

// TestPeersServeTheScenarios holds every proxy that is installed against each thing that a scenario asks of it, briefly.
func TestPeersServeTheScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("starts each proxy several times")
	}
	peers := findPeers(t)
	h := newTestHost(t)
	r := &runner{o: options{rounds: 1, measure: 100 * time.Millisecond}, host: h, peers: peers, progress: new(bytes.Buffer)}
	chosen, err := choose(scenarios(), "h1tls,h2,h3,grpc-*,websocket,handshake-resumed,body-1m-*,routes-100,features")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range chosen {
		variants := s.variants
		if variants == nil {
			variants = []variant{{}}
		}
		t.Run(s.name, func(t *testing.T) {
			for _, p := range peers {
				if why := lacks(p, s.needs); why != "" {
					t.Logf("%s: %s", p.Name, why)
					continue
				}
				for _, v := range variants {
					sample, err := r.measure(t.Context(), s, p, v)
					if err != nil { // on a busy machine a tenth of a second may pass without an answer
						long := *r
						long.o.measure = 3 * time.Second
						sample, err = long.measure(t.Context(), s, p, v)
					}
					if err != nil || sample.Errors > 0 {
						t.Errorf("%s %s: %v, %d errors: %s", p.Name, v.name, err, sample.Errors, sample.FirstError)
					}
				}
			}
		})
	}
}

// TestReload gives every proxy that is installed new configuration while it serves.
func TestReload(t *testing.T) {
	peers := findPeers(t)
	r := &runner{o: options{measure: 300 * time.Millisecond}, host: newTestHost(t), peers: peers, progress: new(bytes.Buffer)}
	s := scenario{
		setup: peer.Setup{Routes: 20, Reloads: true},
		load:  load.Open{Protocol: load.H1, Conns: 4, Requests: routeRequests(20), Fixed: 200, Changes: 100 * time.Millisecond, Changed: firstRoute() + "/version"},
	}
	for _, p := range peers {
		sample, err := r.measure(t.Context(), s, p, variant{})
		if err != nil || sample.Errors > 0 || sample.Changes < 1 {
			t.Errorf("%s: %v, %+v", p.Name, err, sample)
		}
	}
}

// TestQuietly repeats what others disturbed, and keeps the least disturbed measurement.
func TestQuietly(t *testing.T) {
	sample := func(others float64) report.Sample { return report.Sample{Window: 1, Others: others} }
	failed := report.Sample{Failed: "no"}
	tests := map[string]struct {
		quiet   time.Duration
		samples []report.Sample
		want    report.Sample
		tries   int
	}{
		"not asked for":    {0, []report.Sample{sample(2)}, sample(2), 1},
		"quiet at once":    {1, []report.Sample{sample(0.05)}, sample(0.05), 1},
		"quiet later":      {1, []report.Sample{sample(1), sample(0.01)}, sample(0.01), 2},
		"never quiet":      {1, []report.Sample{sample(1.5), sample(0.9), sample(1.2)}, sample(0.9), 3},
		"failed at first":  {1, []report.Sample{failed, sample(0.9), sample(1.2)}, sample(0.9), 3},
		"failed each time": {1, []report.Sample{failed, failed, failed}, failed, 3},
	}
	for name, tt := range tests {
		tries := 0
		r := &runner{o: options{quiet: tt.quiet}}
		got := r.quietly(t.Context(), func() report.Sample {
			tries++
			return tt.samples[tries-1]
		})
		if got != tt.want || tries != tt.tries {
			t.Errorf("%s: %+v after %d tries, want %+v after %d", name, got, tries, tt.want, tt.tries)
		}
	}
}

func TestWaitQuietEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	(&runner{o: options{quiet: time.Hour}}).waitQuiet(ctx)
	(&runner{}).waitQuiet(t.Context())
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it waited %v for nothing", took)
	}
}
