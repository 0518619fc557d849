package gateway

import (
	"fmt"
	"strings"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/snapshot"
)

// Explain says what the running configuration would do with a request to this port, by the very code that serves requests. The head's
// Method, Scheme, Authority, Target and Fields are set; it is changed as a request's is on its way. most bounds the losers listed.
func (e *Engine) Explain(port uint16, head *exchange.Head, most int) (*snapshot.Decision, error) {
	snap := e.pin()
	defer snap.Release()
	secure := head.Scheme == "https"
	bind, ok := snap.BindFor(port, secure)
	if !ok {
		return nil, noSocket(snap, port, head.Scheme)
	}
	x := &exchange.Exchange{Peer: exchange.Peer{Bind: bind}, Req: *head}
	if secure {
		x.Peer.TLS = &exchange.TLSInfo{ServerName: head.Host()}
	}
	r := &run{engine: e, snapshot: snap, x: x}
	if fault := r.admit(); fault != nil {
		return &snapshot.Decision{Socket: bind, Refused: snapshot.NewRefusal(fault)}, nil
	}
	sanitizeRequest(&x.Req)
	describe := func(p config.Policy) string { return e.options.Filters.Describe(p.Kind, p.Payload) }
	return snap.Explain(&x.Peer, &x.Req, describe, most), nil
}

func noSocket(snap *snapshot.Snapshot, port uint16, scheme string) error {
	var open []string
	for _, b := range snap.Sockets() {
		switch b.Kind {
		case downstream.KindHTTP:
			open = append(open, "http "+b.Key())
		case downstream.KindTLS:
			open = append(open, "https "+b.Key())
		default: // nothing there to explain
		}
	}
	if len(open) == 0 {
		open = append(open, "none")
	}
	return fmt.Errorf("no listener serves %s on port %d; there are: %s", scheme, port, strings.Join(open, ", "))
}
