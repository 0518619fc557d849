//go:build !race

package downstream

import "testing"

// TestH1AllocatesNothing holds the promise of the fast path. A build with the race detector lets sync.Pool drop things.
func TestH1AllocatesNothing(t *testing.T) {
	for name, tc := range benchmarks {
		t.Run(name, func(t *testing.T) {
			once := roundTrips(t, tc)
			once()
			if allocs := testing.AllocsPerRun(500, once); allocs != 0 {
				t.Errorf("%v allocations a request", allocs)
			}
		})
	}
}
