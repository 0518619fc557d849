package hostile

import (
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/test/harness"
)

// A flood costs its sender little and its receiver much. One attacker sends until it is cut off, or for a bounded count, while an honest
// client goes on over a connection of its own:
//
//	attacker:  connect  send send send send ... cut off, or done      |
//	honest:    GET 200   GET 200  GET 200 ...                 GET 200 | what the gateway holds now is bounded
//
// The honest client's requests must all succeed. How much slower they become is BenchmarkFlood's to tell: a test that asserted times would fail on
// a busy machine.

// flood is one attack.
type flood struct {
	down harness.Down
	// attack sends until it is cut off or has sent what it had. It keeps what it opened open until held is closed.
	attack func(t testing.TB, f *floodBed) end
	// cut are the ways in which the attacker must end; without any it may go on: what it can cause is bounded otherwise.
	cut []end
	// givesUp says that the gateway must give up the attacker's requests by itself, once they took too long.
	givesUp bool
	// heap is what the gateway, the attacker and the origin may hold together at the end of the attack, in MiB. 24 when 0.
	heap uint64
	// served is how many of the attacker's requests may reach the origin. No matter how many when 0.
	served int64
}

// end is how an attacker's connection ended.
type end struct {
	// over says that the gateway ended it; code is the reason it gave: of GOAWAY, or of HTTP/3's close.
	over bool
	code uint64
}

// floodBed is what a flood runs against.
type floodBed struct {
	*bed
	served atomic.Int64 // requests for other paths than /honest at the origin
	held   chan struct{}
	far    bool // the origin is another process's: nobody waits for what comes there

	mu      sync.Mutex // guards what follows
	change  *sync.Cond
	arrived int // of the requests for other paths than /honest, those that came
	active  int // and those at work
}

// enter and leave count a request of the attacker at the origin.
func (f *floodBed) enter() {
	f.served.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.arrived++
	f.active++
	f.change.Broadcast()
}

func (f *floodBed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active--
	f.change.Broadcast()
}

// wait waits until n of the attacker's requests came to the origin, and, with done, until none is at work any more. It reports whether that came
// in time.
func (f *floodBed) wait(n int, done bool) bool {
	if f.far {
		return true
	}
	var late bool
	defer time.AfterFunc(harness.Patience, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		late = true
		f.change.Broadcast()
	}).Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !late && (f.arrived < n || done && f.active > 0) {
		f.change.Wait()
	}
	return !late
}

// mebibyte of an answer, as the path /big gives it.
const mebibyte = 1 << 20

// flooded is the limit of everything but idle connections.
const flooded = 700 * time.Millisecond

// newFloodBed starts a gateway in front of an origin that keeps nothing. /hang never answers, /big and /huge answer at length, and all else is
// answered after its body came.
func newFloodBed(t testing.TB, down harness.Down) *floodBed {
	t.Helper()
	f := &floodBed{held: make(chan struct{})}
	f.change = sync.NewCond(&f.mu)
	big := strings.Repeat("0123456789abcdef", mebibyte/16)
	env := harness.New(t, harness.Combo{Down: down, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/honest" {
			f.enter()
			defer f.leave()
		}
		switch r.URL.Path {
		case "/hang":
			<-r.Context().Done()
		case "/big":
			_, _ = io.WriteString(w, big)
		case "/huge": // more than sockets hold
			for range 64 {
				if _, err := io.WriteString(w, big); err != nil {
					return
				}
			}
		default:
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "ok")
		}
	}, func(o *harness.EnvOptions) {
		o.Limits = downstream.Limits{HandshakeTimeout: flooded, HeaderTimeout: flooded, BodyIdleTimeout: flooded, IdleTimeout: harness.Patience}
	})
	f.bed = &bed{Env: env}
	return f
}

// floods returns all of them by name.
func floods() map[string]flood {
	all := map[string]flood{}
	for protocol, some := range map[string]map[string]flood{"http1": floodsH1(), "http2": floodsH2(), "resets2": resetsH2(), "read2": slowReadsH2(), "http3": floodsH3()} {
		for name, f := range some {
			all[protocol+"/"+name] = f
		}
	}
	return all
}

// TestFloods runs one after another, with nothing beside: it measures memory.
func TestFloods(t *testing.T) {
	all := floods()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, all[name].run)
	}
}

func (f flood) run(t *testing.T) {
	b := newFloodBed(t, f.down)
	honest := func() {
		if r, err := harness.Do(b.Client, harness.Request{Target: "/honest"}); err != nil || r.Status != 200 || string(r.Body) != "ok" || r.Err != nil {
			t.Errorf("an honest request: %+v, %v", r, err)
		}
	}
	honest()
	before := holding()

	ended := make(chan end, 1)
	go func() { ended <- f.attack(t, b) }()
	var got end
	for requests, over := 0, false; !over || requests < 20; requests++ {
		honest()
		select {
		case got = <-ended:
			over = true
		default:
		}
	}
	after := holding()
	if f.givesUp && !b.wait(0, true) {
		t.Error("the attacker's requests are served for ever")
	}
	close(b.held)

	if len(f.cut) > 0 && !slices.Contains(f.cut, got) {
		t.Errorf("the attacker ended as %+v, want %+v", got, f.cut)
	}
	if f.heap == 0 {
		f.heap = 24
	}
	if after > before+f.heap<<20 {
		t.Errorf("%d KiB more are held, at most %d may be", (after-before)>>10, f.heap<<10)
	}
	if served := b.served.Load(); f.served > 0 && served > f.served {
		t.Errorf("%d of the attacker's requests reached the origin, at most %d may", served, f.served)
	}
	t.Logf("ended %+v; holds %d KiB more; %d requests served", got, (int64(after)-int64(before))>>10, b.served.Load())
}

// holding returns what memory is in use, garbage left out, in bytes.
func holding() uint64 {
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
