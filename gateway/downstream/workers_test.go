package downstream

import (
	"runtime"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// job tells with which Exchange it runs, and ends when it is told to.
type job struct {
	runs chan *exchange.Exchange
	end  chan struct{}
}

func newJob() *job { return &job{make(chan *exchange.Exchange, 1), make(chan struct{})} }

func (j *job) run(x *exchange.Exchange) {
	j.runs <- x
	<-j.end
	x.Req.Method = "left over"
}

// awaitParked waits until so many workers are parked.
func (w *workers) awaitParked(n int) {
	for {
		w.mu.Lock()
		parked := len(w.parked)
		w.mu.Unlock()
		if parked == n {
			return
		}
		runtime.Gosched()
	}
}

func TestWorkers(t *testing.T) {
	var w workers
	first, second := newJob(), newJob()
	w.run(first)
	w.run(second)
	a, b := <-first.runs, <-second.runs
	if a == b {
		t.Fatal("two tasks at once share an exchange")
	}
	close(first.end)
	w.awaitParked(1)
	close(second.end)
	w.awaitParked(2)
	third, fourth := newJob(), newJob()
	w.run(third)
	if x := <-third.runs; x != b {
		t.Error("the worker that parked last does not work next")
	} else if x.Req.Method != "" || x.Life == nil || x.Life.Over() {
		t.Error("the exchange is not as new")
	}
	w.run(fourth)
	if x := <-fourth.runs; x != a {
		t.Error("a parked worker was not used")
	}
	close(third.end)
	w.awaitParked(1)
	for range workerIdle {
		w.tick()
	}
	w.awaitParked(1)
	w.tick()
	w.awaitParked(0)

	fifth := newJob()
	w.run(fifth)
	if x := <-fifth.runs; x == b {
		t.Error("a worker that was idle for long still works")
	}
	close(fifth.end)
	w.awaitParked(1)
	w.close()
	w.awaitParked(0)
	close(fourth.end) // ends its worker, which has nowhere to park
}

func TestWorkersAllocateNothing(t *testing.T) {
	var w workers
	defer w.close()
	done := signal(make(chan struct{}))
	task := task(done)
	if allocs := testing.AllocsPerRun(100, func() {
		w.run(task)
		<-done
		w.awaitParked(1)
	}); allocs != 0 {
		t.Errorf("%v allocations a task", allocs)
	}
}

type signal chan struct{}

func (s signal) run(*exchange.Exchange) { s <- struct{}{} }
