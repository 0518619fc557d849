package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistAgainstSorting(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h, a, b Hist
	var all []time.Duration
	for i := range 100_000 {
		d := time.Duration(math.Exp(random.Float64() * 25)) // 1 ns to 72 s, all magnitudes alike
		all = append(all, d)
		if i%3 == 0 {
			a.Add(d)
		} else {
			b.Add(d)
		}
	}
	h.Merge(&a)
	h.Merge(&b)
	slices.Sort(all)
	for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 0.99999} {
		want, got := all[int(q*float64(len(all)))], h.Quantile(q)
		if got < want || float64(got-want) > float64(want)/64 {
			t.Errorf("quantile %v: %v, sorting says %v", q, got, want)
		}
	}
	if got, want := h.Quantile(1), all[len(all)-1]; got != want {
		t.Errorf("quantile 1: %v, the largest is %v", got, want)
	}
}

func TestHistEdges(t *testing.T) {
	var h Hist
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("empty: %v", got)
	}
	for _, d := range []time.Duration{-1, 0, 1, 127, 128, 129, 255, 256, math.MaxInt64 - 1, math.MaxInt64} {
		i := bucket(d)
		if max(d, 0) > upper(i) || i > 0 && upper(i-1) >= d {
			t.Errorf("%d is in bucket %d, which ends at %d; the one before at %d", d, i, upper(i), upper(max(i-1, 0)))
		}
	}
	h.Add(math.MaxInt64)
	h.Add(-5)
	if got := h.Quantile(0); got != 0 {
		t.Errorf("a negative duration counts as %v", got)
	}
	if got := h.Quantile(0.9); got != math.MaxInt64 {
		t.Errorf("the longest duration counts as %v", got)
	}
}
