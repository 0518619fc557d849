// Package buffer lends the memory that bodies and streams are copied through. It knows nothing of what they hold.
//
// Large pieces cost fewer system calls, small ones less memory while a peer is slow. So a copy begins with a small piece and goes on with large
// ones as soon as its source fills one at once:
//
//	slow source    small, small, small ...             what arrives fits
//	fast source    small (full), large, large ...      until a read brings less than a small piece
package buffer

import "sync"

// Sizes of pieces, in bytes.
const (
	Small = 32 << 10
	Large = 256 << 10
)

// Piece is the memory of one copy. The zero Piece is ready for use; Release gives the memory back. It is for one goroutine.
type Piece struct {
	small *[Small]byte
	large *[Large]byte
}

// sync.Pool owns what is in them.
var (
	smalls = sync.Pool{New: func() any { return new([Small]byte) }}
	larges = sync.Pool{New: func() any { return new([Large]byte) }}
)

// Next returns the memory for the next read. last is how much the read before brought, 0 at first.
func (p *Piece) Next(last int) []byte {
	if last >= Small {
		if p.large == nil {
			p.Release()
			p.large, _ = larges.Get().(*[Large]byte)
		}
		return p.large[:]
	}
	if p.small == nil {
		p.Release()
		p.small, _ = smalls.Get().(*[Small]byte)
	}
	return p.small[:]
}

// Release gives the memory back. It may be called again.
func (p *Piece) Release() {
	if p.small != nil {
		smalls.Put(p.small)
		p.small = nil
	}
	if p.large != nil {
		larges.Put(p.large)
		p.large = nil
	}
}
