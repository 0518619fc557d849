package gateway

import (
	"io"

	"gatehouse.dev/gatehouse/gateway/buffer"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// side is one end of a stream.
type side struct {
	exchange.Stream
	// socket gives what the bytes can be read from and written to without the Stream; nil where they are not those of a socket, or not yet.
	socket func() *sock.Conn
	// fault is what its failure is.
	fault exchange.Kind
}

// way is one direction of a stream.
type way struct {
	from, to *side
	moved    func(n int64) // counts bytes
	// unread and unwritten count bytes for the client's Stream, which did not see them read or written. One of them is nil.
	unread, unwritten func(n int64)
	// ahead tells, where it is there, whether from has bytes that its socket has not.
	ahead func() bool
	// refused says that to takes no more. It is for who waited for run.
	refused bool
}

// run carries bytes until from ends, and passes the end on. broken is told when from broke.
func (w *way) run(broken func(*exchange.Fault)) {
	readErr, writeErr := w.carry()
	switch {
	case readErr != nil:
		broken(exchange.NewFault(w.from.fault, readErr))
	case writeErr != nil:
		w.refused = true
	default:
		_ = w.to.CloseWrite()
	}
}

// carry takes the shortest way that there is: from socket to socket, or through memory. Memory is held for a side that is silent only where
// that is TLS.
func (w *way) carry() (readErr, writeErr error) {
	var memory buffer.Piece
	defer memory.Release()
	for n := 0; ; {
		if from := w.from.socket(); from != nil && (w.ahead == nil || !w.ahead()) {
			memory.Release()
			if to := w.to.socket(); to != nil {
				return sock.Carry(to, from, func(n int64) { w.count(n, w.unread, w.unwritten) })
			}
			return sock.Feed(w.to, from, func(n int64) { w.count(n, w.unread) })
		}
		piece := memory.Next(n)
		n, readErr = w.from.Read(piece)
		if n > 0 {
			w.moved(int64(n))
			if _, writeErr = w.to.Write(piece[:n]); writeErr != nil {
				return nil, writeErr
			}
		}
		if readErr == io.EOF {
			return nil, nil
		}
		if readErr != nil {
			return readErr, nil
		}
	}
}

// count counts bytes, once and where they were not seen.
func (w *way) count(n int64, unseen ...func(int64)) {
	w.moved(n)
	for _, count := range unseen {
		if count != nil {
			count(n)
		}
	}
}
