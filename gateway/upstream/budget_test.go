package upstream

import (
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
)

// TestBudget: so many percent of the last interval's requests, and never less than the least rate.
func TestBudget(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	granted := func(b *budget, at time.Time, asked int) (n int) {
		for range asked {
			if b.retry(at) {
				n++
			}
		}
		return n
	}
	b := newBudget(&config.RetryBudget{Percent: 20, Interval: 16 * time.Second})
	for range 100 {
		b.request(now)
	}
	if got := granted(b, now, 50); got != 20 {
		t.Errorf("%d retries for 100 requests, want 20", got)
	}
	if got := granted(b, now.Add(15*time.Second), 50); got != 0 {
		t.Errorf("%d more within the interval, want none", got)
	}
	if got := granted(b, now.Add(16*time.Second), 50); got != 0 {
		t.Errorf("%d when requests and retries are both forgotten, want none", got)
	}
	for range 10 {
		b.request(now.Add(17 * time.Second))
	}
	if got := granted(b, now.Add(18*time.Second), 50); got != 2 {
		t.Errorf("%d for 10 requests of a new interval, want 2", got)
	}

	least := newBudget(&config.RetryBudget{Percent: 0, Interval: 10 * time.Second, MinRetries: 3, MinInterval: time.Second})
	for second := range 4 {
		if got := granted(least, now.Add(time.Duration(second)*time.Second), 10); got != 3 {
			t.Errorf("second %d: %d retries, want 3", second, got)
		}
	}
	all := newBudget(&config.RetryBudget{Percent: 100, Interval: time.Second})
	all.request(now)
	if got := granted(all, now, 2); got != 1 {
		t.Errorf("%d retries for one request at 100 %%, want 1", got)
	}
	if got := granted(all, now.Add(time.Hour), 2); got != 0 {
		t.Errorf("%d retries an hour later, want none", got)
	}
}

// TestWindowBackwards: a clock that goes back forgets nothing and counts on.
func TestWindowBackwards(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	w := newWindow(16 * time.Second)
	w.advance(now)
	w.add(1)
	w.advance(now.Add(-time.Hour))
	w.add(1)
	if w.sum != 2 {
		t.Errorf("sum %d, want 2", w.sum)
	}
}
