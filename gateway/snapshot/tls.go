package snapshot

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/routing"
)

// listenerTLS is the TLS settings of a listener with what they were made from.
type listenerTLS struct {
	protocol     config.Protocol
	certificates []*config.Certificate
	clients      *clientRules // nil when clients are asked for no certificate
	tcp, quic    *tls.Config

	scope      string // names keys
	keys       *rotation
	generation atomic.Uint64 // of the keys that tcp and quic have
}

// listenerTLS makes a listener's TLS settings, or takes over the previous ones when neither certificates nor rules for clients changed.
func (b *build) listenerTLS(l *config.Listener) (*listenerTLS, error) {
	var sources []*config.Certificate
	for _, name := range l.TLS.Certificates {
		sources = append(sources, b.certificates[name])
	}
	clients, err := b.clientRules(l)
	if err != nil {
		return nil, err
	}
	before := b.Compiler.tls[l.Name]
	if before != nil && before.protocol == l.Protocol && before.clients == clients && slices.EqualFunc(before.certificates, sources, sameCertificate) {
		b.tls[l.Name] = before
		return before, nil
	}
	chooser, err := newChooser(sources)
	if err != nil {
		return nil, err
	}
	scope := ticketScope(l)
	t := &listenerTLS{protocol: l.Protocol, certificates: sources, clients: clients, scope: scope, keys: b.tickets.of(scope)}
	t.tcp = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: chooser.choose, NextProtos: []string{"h2", "http/1.1"}}
	t.quic = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: chooser.choose, NextProtos: []string{"h3"}}
	if l.Protocol == config.TLS {
		t.tcp.NextProtos = nil // what is within is the client's and the endpoint's to agree on
	}
	if clients != nil {
		clients.ask(t.tcp)
		clients.ask(t.quic)
	}
	t.refresh(time.Now())
	b.tls[l.Name] = t
	return t, nil
}

// config returns the settings for a handshake, with ticket keys that are fresh enough.
func (t *listenerTLS) config(quic bool) *tls.Config {
	t.refresh(time.Now())
	if quic {
		return t.quic
	}
	return t.tcp
}

// refresh hands the ticket keys on when they are others than last time. Settings of an earlier configuration share the rotation, so that
// a rotation may have been seen there first.
func (t *listenerTLS) refresh(now time.Time) {
	if keys, generation := t.keys.at(now); t.generation.Swap(generation) != generation {
		t.tcp.SetSessionTicketKeys(keys)
		t.quic.SetSessionTicketKeys(keys)
	}
}

func sameCertificate(a, b *config.Certificate) bool {
	return a == b || a.Chain == b.Chain && string(a.Key) == string(b.Key)
}

// chooser picks the certificate for a server name: one with that exact name, then one with a wildcard for it, then the first listed;
// within each, the first that the client can verify (key type, signature algorithms).
type chooser struct {
	byName routing.Hosts[[]*tls.Certificate]
	all    []*tls.Certificate
}

func newChooser(sources []*config.Certificate) (*chooser, error) {
	c := &chooser{}
	names := map[string][]*tls.Certificate{}
	for _, source := range sources {
		cert, err := tls.X509KeyPair([]byte(source.Chain), source.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", source.Name, err)
		}
		c.all = append(c.all, &cert)
		for _, name := range cert.Leaf.DNSNames {
			name = strings.ToLower(name)
			names[name] = append(names[name], &cert)
		}
	}
	if len(c.all) == 0 {
		return nil, errors.New("there is no certificate")
	}
	for name, certs := range names {
		c.byName.Set(name, certs)
	}
	return c, nil
}

func (c *chooser) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName != "" {
		certs, _ := c.byName.Find(strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")))
		for _, cert := range certs {
			if hello.SupportsCertificate(cert) == nil {
				return cert, nil
			}
		}
	}
	for _, cert := range c.all {
		if hello.SupportsCertificate(cert) == nil {
			return cert, nil
		}
	}
	return c.all[0], nil // let the handshake say what does not fit
}

// ticketKeys are the session ticket keys of each listener, by ticketScope. crypto/tls would otherwise take the keys of the outer
// configuration, which all listeners of a socket share, and a session of one listener would resume on another. Keys outlive a change of
// certificates, so that clients go on resuming.
type ticketKeys struct {
	listeners map[string]*rotation
}

func (t *ticketKeys) of(scope string) *rotation {
	r := t.listeners[scope]
	if r == nil {
		r = newRotation(time.Now())
		t.listeners[scope] = r
	}
	return r
}

// keep forgets the keys of listeners that are gone.
func (t *ticketKeys) keep(listeners map[string]*listenerTLS) {
	kept := make(map[string]bool, len(listeners))
	for _, l := range listeners {
		kept[l.scope] = true
	}
	maps.DeleteFunc(t.listeners, func(scope string, _ *rotation) bool { return !kept[scope] })
}

// rotation is the ticket keys of one listener: a ticket is sealed with the newest and opened with any.
type rotation struct {
	mu         sync.Mutex
	keys       [][32]byte // newest first; guarded by mu, its array is never written again
	made       time.Time  // of keys[0]; guarded by mu
	generation uint64     // counts the keys made; guarded by mu
}

const (
	ticketKeyAge  = 12 * time.Hour
	ticketKeysOld = 3 // enough that a ticket works for the day that crypto/tls lets it live
)

func newRotation(now time.Time) *rotation {
	r := &rotation{}
	r.add(now)
	return r
}

// add is called with mu held, or before r is shared.
func (r *rotation) add(now time.Time) {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	r.keys = slices.Concat([][32]byte{key}, r.keys[:min(len(r.keys), ticketKeysOld-1)])
	r.made = now
	r.generation++
}

// at returns the keys to use now, after adding one when the newest is too old, with their generation, which is never 0.
func (r *rotation) at(now time.Time) (keys [][32]byte, generation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.made) >= ticketKeyAge {
		r.add(now)
	}
	return r.keys, r.generation
}
