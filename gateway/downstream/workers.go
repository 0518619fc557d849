package downstream

import (
	"sync"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// task is one exchange to serve: a stream of HTTP/2 or HTTP/3.
type task interface {
	// run serves the exchange with x, which is as new but for Peer, and is used again afterwards.
	run(x *exchange.Exchange)
}

// workers are the goroutines that serve the exchanges of multiplexed connections. A worker that is done parks, with its Exchange and
// its grown stack, and the one that parked last works next: its memory is the likeliest to be in the processor's cache. Those that the
// load of the moment does not need end after workerIdle ticks. The zero workers have none.
type workers struct {
	mu     sync.Mutex
	parked []*worker // the last parked is the last; guarded by mu
	ticks  uint64    // guarded by mu
	closed bool      // guarded by mu
}

// worker is one of the goroutines.
type worker struct {
	owner    *workers
	next     chan task // closed to end the worker
	parkedAt uint64    // in ticks; guarded by owner.mu
}

// workerIdle is for how many ticks of the bind a worker stays parked.
const workerIdle = 20

// run has a worker run t. It does not wait.
func (w *workers) run(t task) {
	w.mu.Lock()
	if last := len(w.parked) - 1; last >= 0 {
		one := w.parked[last]
		w.parked[last] = nil
		w.parked = w.parked[:last]
		w.mu.Unlock()
		one.next <- t // has room: a parked worker's channel is empty
		return
	}
	w.mu.Unlock()
	one := &worker{owner: w, next: make(chan task, 1)}
	go one.work(t)
}

// tick ends the workers that were parked for long.
func (w *workers) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ticks++
	idle := 0
	for idle < len(w.parked) && w.ticks-w.parked[idle].parkedAt > workerIdle {
		close(w.parked[idle].next)
		idle++
	}
	w.forget(idle)
}

// close ends all workers: the parked ones now, the others when they are done.
func (w *workers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, one := range w.parked {
		close(one.next)
	}
	w.forget(len(w.parked))
}

// forget takes out those parked the longest. It is called with mu held.
func (w *workers) forget(n int) {
	left := copy(w.parked, w.parked[n:])
	clear(w.parked[left:])
	w.parked = w.parked[:left]
}

func (w *workers) park(one *worker) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	one.parkedAt = w.ticks
	w.parked = append(w.parked, one)
	return true
}

func (o *worker) work(t task) {
	var x exchange.Exchange
	x.Reset()
	for ok := true; ok; {
		t.run(&x)
		x.Reset() // nothing of the exchange is held while the worker is parked
		if !o.owner.park(o) {
			return
		}
		t, ok = <-o.next
	}
}
