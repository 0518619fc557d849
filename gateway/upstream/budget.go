package upstream

import (
	"sync"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
)

// budget bounds the retries towards a cluster: of the requests of the last Interval so many percent may be retries, and MinRetries in each
// MinInterval are always allowed (Gateway API: RetryConstraint). Time is cut into slices of a sixteenth of the interval:
//
//	Interval 16 s, 20 %     slice    0  1  2  ... 15
//	                        requests 10 0  90     0      100 in all
//	                        retries  5  0  12     0      17 in all: three more are allowed
//
// A sum over the slices is so the last interval's, to a sixteenth.
type budget struct {
	config config.RetryBudget

	mu       sync.Mutex
	requests window // guarded by mu
	retries  window // guarded by mu
	least    window // retries by MinInterval; guarded by mu
}

const budgetSlices = 16

// window counts by slices of time.
type window struct {
	slice time.Duration
	last  int64 // the newest slice, counted from the zero time of the clock that is used
	count [budgetSlices]uint64
	sum   uint64
}

func newWindow(span time.Duration) window {
	return window{slice: max(span/budgetSlices, 1)}
}

// advance forgets what is older than the span.
func (w *window) advance(now time.Time) {
	at := now.UnixNano() / int64(w.slice)
	for passed := min(at-w.last, budgetSlices); passed > 0; passed-- {
		old := &w.count[(at-passed+1)%budgetSlices]
		w.sum -= *old
		*old = 0
	}
	w.last = max(at, w.last)
}

func (w *window) add(n uint64) {
	w.count[w.last%budgetSlices] += n
	w.sum += n
}

func newBudget(c *config.RetryBudget) *budget {
	return &budget{config: *c, requests: newWindow(c.Interval), retries: newWindow(c.Interval), least: newWindow(c.MinInterval)}
}

// request counts one.
func (b *budget) request(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests.advance(now)
	b.requests.add(1)
}

// retry takes one retry, if there is one left.
func (b *budget) retry(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests.advance(now)
	b.retries.advance(now)
	b.least.advance(now)
	if b.least.sum >= uint64(max(b.config.MinRetries, 0)) && (b.retries.sum+1)*100 > b.requests.sum*uint64(max(b.config.Percent, 0)) {
		return false
	}
	b.retries.add(1)
	b.least.add(1)
	return true
}
