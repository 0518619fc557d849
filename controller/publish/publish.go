// Package publish hands configurations to the proxies and knows which one each of them runs. In standalone mode there is one proxy, in
// this process (Publisher); in a cluster each Gateway has its own, and gets its part (Fleet).
package publish

import (
	"context"
	"sync"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/gateway/config"
)

// Target is a proxy that takes configurations.
type Target interface {
	// Apply makes the configuration the running one. An error means that it was refused and the previous one goes on.
	Apply(ctx context.Context, cfg *config.Config) (config.Applied, error)
}

// Ack is a proxy's answer to one configuration.
type Ack struct {
	// Version counts the configurations published, from 1.
	Version uint64
	// Err is set when the configuration was refused as a whole.
	Err error
	// Applied says what of it does not serve.
	Applied config.Applied
}

// Publisher hands configurations to one Target, one at a time. Its methods are safe for concurrent use.
type Publisher struct {
	target Target

	mu      sync.Mutex
	version uint64         // guarded by mu
	running *config.Config // the last one that was not refused; guarded by mu
	ack     Ack            // guarded by mu
}

// New returns a Publisher for a target.
func New(t Target) *Publisher { return &Publisher{target: t, running: &config.Config{}} }

// Publish hands the configuration of the next plan over and waits for the answer.
func (p *Publisher) Publish(ctx context.Context, next *plan.Plan) Ack {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version++
	applied, err := p.target.Apply(ctx, next.Config)
	if err == nil {
		p.running = next.Config
	}
	p.ack = Ack{Version: p.version, Err: err, Applied: applied}
	return p.ack
}

// Ack returns the answer to the last configuration.
func (p *Publisher) Ack() Ack {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ack
}

// Running returns the configuration that the target runs.
func (p *Publisher) Running() *config.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running
}
