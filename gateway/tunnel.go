package gateway

import (
	"errors"
	"io"
	"sync"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// bufferPool lends the buffers that bodies are copied through.
type bufferPool struct{ pool sync.Pool }

const copyBufferSize = 32 << 10

func (p *bufferPool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, copyBufferSize)
	return &b
}

func (p *bufferPool) put(b *[]byte) { p.pool.Put(b) }

// copy copies from one side to the other. Both are hidden behind plain readers and writers so that nothing bypasses the buffer.
func (p *bufferPool) copy(to io.Writer, from io.Reader) (int64, error) {
	buffer := p.get()
	defer p.put(buffer)
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, *buffer)
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
	n, err := r.engine.buffers.copy(to, from)
	if err != nil || errors.Is(to.CloseWrite(), errors.ErrUnsupported) {
		closeBoth()
	}
	return n
}
