package load

import (
	"math/bits"
	"time"
)

// Hist counts durations in buckets that are never wider than 1/64 of what they hold, so that a percentile is right within 1.6 %.
//
// The bucket of a number is its highest 7 bits and how far they are shifted: 0 to 127 ns have a bucket each, then each doubling has 64.
// 200 = 0b1100_1000 has 8 bits: shift 1, leaving 100; it shares its bucket with 201.
type Hist struct {
	counts [64 + 58*64]int64
	total  int64
	max    time.Duration
}

func bucket(d time.Duration) int {
	n := uint64(max(d, 0))
	shift := max(bits.Len64(n)-7, 0)
	return shift*64 + int(n>>shift)
}

// upper returns the largest duration of a bucket.
func upper(bucket int) time.Duration {
	if bucket < 128 {
		return time.Duration(bucket)
	}
	shift := bucket/64 - 1
	return time.Duration((uint64(bucket-shift*64)+1)<<shift - 1)
}

// Add counts a duration.
func (h *Hist) Add(d time.Duration) {
	h.counts[bucket(d)]++
	h.total++
	h.max = max(h.max, d)
}

// Merge adds what another one counted.
func (h *Hist) Merge(other *Hist) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// Quantile returns a duration that the share q of all does not exceed, 0 when nothing was counted. It is never more than the largest.
func (h *Hist) Quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := int64(q * float64(h.total))
	for i, n := range h.counts {
		if rank -= n; rank < 0 {
			return min(upper(i), h.max)
		}
	}
	return h.max
}
