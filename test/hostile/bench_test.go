package hostile

import (
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/test/harness"
)

// attackVariable makes this test binary an attacker: its value is the flood's name and the gateway's port.
const attackVariable = "HOSTILE_ATTACK"

// BenchmarkFlood tells what a flood costs others: the latency of honest clients' requests, first in peace and then with the flood under way,
// whose attacker comes back whenever it was cut off. x is the ratio of the 99th percentiles.
//
//	go test -run '^$' -bench Flood ./test/hostile
//
// The attacker is a process of the lowest priority, so that the work of attacking is not taken for the work of being attacked. The honest
// clients keep the gateway as busy as it can be: how late an idle machine's scheduler is for a burst of work is not what is asked.
func BenchmarkFlood(b *testing.B) {
	all := floods()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b.Run(name, func(b *testing.B) {
			f := newFloodBed(b, all[name].down)
			clients := make([]harness.Client, honestClients)
			for i := range clients {
				clients[i] = f.NewClient(b)
			}
			latencies(b, clients, 10*honestClients) // everybody has a connection
			peace := latencies(b, clients, 5000)
			stop := f.attackFromElsewhere(b, name)
			defer stop()
			b.ResetTimer()
			flooded := latencies(b, clients, b.N)
			b.ReportMetric(float64(percentile(peace, 99).Microseconds()), "calm-p99-us")
			b.ReportMetric(float64(percentile(flooded, 99).Microseconds()), "p99-us")
			b.ReportMetric(float64(percentile(flooded, 99))/float64(percentile(peace, 99)), "x")
		})
	}
}

// honestClients ask one request after another, each over a connection of its own.
const honestClients = 16

// latencies has the clients send n requests together.
func latencies(b *testing.B, clients []harness.Client, n int) []time.Duration {
	b.Helper()
	all := make([]time.Duration, n)
	var next atomic.Int64
	var asking sync.WaitGroup
	for _, client := range clients {
		asking.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				start := time.Now()
				if r, err := harness.Do(client, harness.Request{Target: "/honest"}); err != nil || r.Status != 200 || r.Err != nil {
					b.Errorf("an honest request: %+v, %v", r, err)
				}
				all[i] = time.Since(start)
			}
		})
	}
	asking.Wait()
	return all
}

func percentile(all []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)-1)*p/100]
}

// attackFromElsewhere starts a process that attacks again and again, and returns what ends it. It returns once an attack is under way.
func (f *floodBed) attackFromElsewhere(b *testing.B, name string) (stop func()) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), attackVariable+"="+strconv.Itoa(int(f.Port))+" "+name)
	cmd.Stderr = os.Stderr
	started, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	if _, err := started.Read(make([]byte, 1)); err != nil {
		b.Fatalf("the attacker does not start: %v", err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// attackFromHere is the attacker's process. It ends when it is killed.
func attackFromHere() {
	port, name, _ := strings.Cut(os.Getenv(attackVariable), " ")
	number, err := strconv.ParseUint(port, 10, 16)
	attack := floods()[name].attack
	if err != nil || attack == nil {
		os.Exit(1)
	}
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19)
	_, _ = io.WriteString(os.Stdout, "!")
	for {
		f := &floodBed{bed: &bed{Env: &harness.Env{Port: uint16(number)}}, held: make(chan struct{}), far: true}
		if !attack(nobody{}, f).over {
			<-time.After(2 * time.Second) // what it holds is the attack
		}
		close(f.held)
	}
}

// nobody is told what goes wrong with an attack whose gateway has had enough.
type nobody struct{ testing.TB }

func (nobody) Error(...any) {}
