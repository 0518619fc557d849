package gateway

import (
	"errors"
	"io"
	"sync"

	"gatehouse.dev/gatehouse/gateway/buffer"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// copyBytes copies from one side to the other.
func copyBytes(to io.Writer, from io.Reader) (total int64, err error) {
	var memory buffer.Piece
	defer memory.Release()
	for n := 0; ; {
		piece := memory.Next(n)
		n, err = from.Read(piece)
		if n > 0 {
			wrote, failed := to.Write(piece[:n])
			total += int64(wrote)
			if failed != nil {
				return total, failed
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// tunnel carries raw bytes both ways after a protocol switch, until both sides have ended, or one side broke or cannot be half-closed.
// The exchange's time limits were for the switch; they end here.
func (r *run) tunnel(endpoint exchange.Stream) *exchange.Fault {
	r.stopTimers()
	// A client that half-closes is not gone any more: the end passes through the tunnel like everything else.
	r.x.Life.Detach()
	client, err := r.w.Tunnel()
	if err != nil {
		_ = endpoint.Close()
		return exchange.NewFault(exchange.ClientAborted, err)
	}
	closeBoth := sync.OnceFunc(func() {
		_ = endpoint.Close()
		_ = client.Close()
	})
	defer closeBoth()
	var in int64
	var up sync.WaitGroup
	up.Go(func() {
		in = r.pump(endpoint, client, closeBoth)
	})
	r.x.BytesOut = r.pump(client, endpoint, closeBoth)
	up.Wait()
	r.body.count.Add(in)
	return nil
}

// pump copies one way and passes the end on.
func (r *run) pump(to, from exchange.Stream, closeBoth func()) int64 {
	n, err := copyBytes(to, from)
	if err != nil || errors.Is(to.CloseWrite(), errors.ErrUnsupported) {
		closeBoth()
	}
	return n
}
