package downstream

import (
	"errors"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/codec/section"
)

// h2Budgets bound what a client may make the gateway do without asking it for anything useful. Over one of them the connection ends with
// GOAWAY ENHANCE_YOUR_CALM; the other connections do not notice. All but sent is guarded by h2Session.mu.
//
//	resets    RST_STREAM of a request that is being served (CVE-2023-44487). Each response that goes out whole gives one back.
//	provoked  what makes the gateway reset a stream: malformed messages, WINDOW_UPDATE beyond 2^31-1, DATA on a closed stream
//	          (CVE-2025-8671); and heads and trailers over the limits, which are decoded all the same: a few bytes can refer to many
//	refused   requests over MaxStreams: a client that has not seen our SETTINGS yet may send many
//	control   PING, SETTINGS, PRIORITY, PRIORITY_UPDATE, WINDOW_UPDATE, unknown frames, empty DATA, CONTINUATION. Each request and each
//	          DATA frame that is sent gives some back: those who take much data send WINDOW_UPDATE, and PING to measure the path.
type h2Budgets struct {
	resets, provoked, refused, control h2.Budget

	sent atomic.Uint32 // DATA frames sent since control was last filled from it
}

const (
	h2ControlMost = 1000
	// What frames cost of the control budget, and what gives back.
	h2CostSettings  = 10
	h2CostEmptyData = 4
	h2GiveData      = 4
	h2GiveRequest   = 8
	// h2SmallData is the size up to which DATA that nobody waits for costs one.
	h2SmallData = 1 << 10
	// h2CostTooLarge is what a head or trailers over the limits cost of the budget for what is provoked.
	h2CostTooLarge = 4
	// h2UnknownBytes of an unknown frame cost one.
	h2UnknownBytes = 256
)

func (b *h2Budgets) init(maxStreams int) {
	b.resets.Init(max(100, maxStreams), 20)
	b.provoked.Init(100, 10)
	b.refused.Init(max(1000, 4*maxStreams), 100)
	b.control.Init(h2ControlMost, 200)
}

func (b *h2Budgets) refill(elapsed time.Duration) {
	b.resets.Refill(elapsed)
	b.provoked.Refill(elapsed)
	b.refused.Refill(elapsed)
	b.control.Refill(elapsed)
}

func calm(flood string) error {
	return &h2.ConnError{Code: h2.EnhanceYourCalm, Reason: flood}
}

func spend(b *h2.Budget, n int, flood string) error {
	if b.Spend(n) {
		return nil
	}
	return calm(flood)
}

// provocation is what a message that was refused for err costs: one over the limits had to be decoded to its end, to keep the table in step.
func provocation(err error) int {
	if errors.Is(err, section.ErrTooLarge) {
		return h2CostTooLarge
	}
	return 1
}

// spendControl takes n from the control budget.
func (b *h2Budgets) spendControl(n int, flood string) error {
	if b.control.Spend(n) {
		return nil
	}
	b.control.Give(n)
	b.control.Give(h2GiveData * int(min(b.sent.Swap(0), h2ControlMost)))
	return spend(&b.control, n, flood)
}

// h2Resets remembers the streams that the gateway reset last and on which the client may still be sending without fault (RFC 9113 5.1).
type h2Resets struct {
	ids  [64]uint32
	next int
}

func (r *h2Resets) add(id uint32) {
	r.ids[r.next%len(r.ids)] = id
	r.next++
}

func (r *h2Resets) has(id uint32) bool {
	for _, known := range r.ids {
		if known == id {
			return true
		}
	}
	return false
}

// h2Early holds the priorities that a client sent ahead of their streams (RFC 9218 7.1); the latest few of them.
type h2Early struct {
	entries [8]struct {
		id       uint32
		priority h2.Priority
	}
	next int
}

func (e *h2Early) put(id uint32, p h2.Priority) {
	for i := range e.entries {
		if e.entries[i].id == id {
			e.entries[i].priority = p
			return
		}
	}
	slot := &e.entries[e.next%len(e.entries)]
	slot.id, slot.priority = id, p
	e.next++
}

func (e *h2Early) take(id uint32) (h2.Priority, bool) {
	for i := range e.entries {
		if e.entries[i].id == id {
			e.entries[i].id = 0
			return e.entries[i].priority, true
		}
	}
	return h2.Priority{}, false
}
