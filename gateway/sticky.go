package gateway

import (
	"net/netip"
	"time"

	"gatehouse.dev/gatehouse/gateway/snapshot"
	"gatehouse.dev/gatehouse/gateway/upstream"
)

// sticky is what an exchange knows of its client's session. The zero value is an exchange without one.
type sticky struct {
	// endpoint is where the client's token leads within the chosen backend; the zero value when it brought none that does.
	endpoint netip.AddrPort
	since    time.Time
}

// resume returns the backend that the client's session is on; nil when it has none, or that backend takes no requests any more. A rule's
// own persistence outdoes that of its backends' clusters.
func (r *run) resume() *snapshot.Backend {
	rule := r.rule
	for i := range rule.Backends {
		b := &rule.Backends[i]
		session := r.session(b)
		if session == nil {
			continue
		}
		var found *snapshot.Backend
		place, ok := session.Find(r.x.Req.Fields, func(p *upstream.Place) bool {
			if rule.Session == nil {
				found = b
				return p.In(b.Name)
			}
			for j := range rule.Backends {
				if found = &rule.Backends[j]; found.Invalid == "" && p.In(found.Name) {
					return true
				}
			}
			return false
		})
		if ok {
			r.sticky = sticky{endpoint: place.Endpoint, since: place.Since}
			return found
		}
		if rule.Session != nil {
			return nil // the one token was looked at
		}
	}
	return nil
}

// session returns the session persistence that applies to a backend.
func (r *run) session(b *snapshot.Backend) *upstream.Session {
	switch {
	case b.Invalid != "" || b.Cluster == nil:
		return nil
	case r.rule.Session != nil:
		return r.rule.Session
	}
	return b.Cluster.Session()
}

// persist tells the client which backend and endpoint its session is on, when that is news to it.
func (r *run) persist() {
	if r.backend == nil || r.endpoint == nil {
		return // a filter answered
	}
	session := r.session(r.backend)
	if session == nil || r.sticky.endpoint == r.endpoint.Addr() {
		return
	}
	since := r.sticky.since // a session that lost its endpoint goes on with another one
	if since.IsZero() {
		since = time.Now()
	}
	token := session.Seal(r.backend.Name, r.endpoint.Addr(), since)
	session.Issue(&r.x.Resp.Fields, token, since, r.x.Peer.TLS != nil)
}
