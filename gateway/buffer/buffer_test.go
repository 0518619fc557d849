package buffer

import "testing"

// TestPiece follows a copy whose source is slow, then fast, then slow again.
func TestPiece(t *testing.T) {
	var p Piece
	defer p.Release()
	for i, step := range []struct{ last, want int }{{0, Small}, {100, Small}, {Small - 1, Small}, {Small, Large}, {Large, Large}, {Small, Large}, {10, Small}} {
		if got := len(p.Next(step.last)); got != step.want {
			t.Errorf("step %d: after %d bytes a piece of %d, want %d", i, step.last, got, step.want)
		}
	}
	p.Release()
	if got := len(p.Next(0)); got != Small {
		t.Errorf("after Release a piece of %d", got)
	}
}

// TestPieceAllocatesNothing: the memory is lent again and again.
func TestPieceAllocatesNothing(t *testing.T) {
	got := testing.AllocsPerRun(1000, func() {
		var p Piece
		_, _ = p.Next(0), p.Next(Small)
		p.Release()
	})
	if got >= 1 {
		t.Errorf("%v allocations a copy", got)
	}
}
