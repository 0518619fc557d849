package h2

import "time"

// Budget bounds how often a peer may do what is cheap for it and dear for the gateway: a token bucket. Each act spends, time refills, and
// what the peer's honest work explains gives back:
//
//	reset streams: 100, 10 a second, 1 for each response that went out whole
//	a page that is left with 60 requests under way   40 are left, 100 again after 6 s
//	a client that opens and resets without end       100 at once, then 10 a second: its connection ends
//
// Time comes from outside, with Refill, so that spending reads no clock. The zero Budget has nothing to spend. It is not safe for concurrent
// use.
type Budget struct {
	most, perSecond int
	left            int
	owed            time.Duration // time that Refill has not turned into whole units
}

// Init fills the budget.
func (b *Budget) Init(most, perSecond int) { *b = Budget{most: most, perSecond: perSecond, left: most} }

// Spend takes n. It returns false when there is less: the peer is over its budget.
func (b *Budget) Spend(n int) bool {
	b.left -= n
	return b.left >= 0
}

// Give adds n.
func (b *Budget) Give(n int) { b.left = min(b.left+n, b.most) }

// Refill adds what elapsed brings.
func (b *Budget) Refill(elapsed time.Duration) {
	b.owed += min(elapsed, time.Minute)
	n := int(b.owed * time.Duration(b.perSecond) / time.Second)
	if n == 0 {
		return
	}
	b.owed -= time.Duration(n) * time.Second / time.Duration(b.perSecond)
	b.Give(n)
}
