package probe

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// How often a container that never succeeded yet is asked, whatever its period is: tests wait for pods to become ready.
const eagerInterval = 200 * time.Millisecond

// Defaults of the Pod API, for probes that did not pass an API server.
const (
	defaultPeriod  = 10
	defaultFailure = 3
)

// Watch checks again and again as the probe says until ctx ends, and tells report of every change: true after as many successes in a row as
// successThreshold, false after as many failures as failureThreshold, with the last failure. Nothing is reported twice in a row.
//
// Before the first success it asks more often than the period. Those additional answers count as successes, but not as failures, so a
// container has as long to start as the probe says.
func Watch(ctx context.Context, p *corev1.Probe, check func(context.Context) error, report func(ok bool, err error)) {
	if pause(ctx, time.Duration(p.InitialDelaySeconds)*time.Second) != nil {
		return
	}
	c := counter{success: max(p.SuccessThreshold, 1), failure: p.FailureThreshold}
	if c.failure == 0 {
		c.failure = defaultFailure
	}
	period := time.Duration(p.PeriodSeconds) * time.Second
	if period == 0 {
		period = defaultPeriod * time.Second
	}
	for next := time.Now(); ; {
		due := !time.Now().Before(next)
		if due {
			next = next.Add(period)
		}
		err := check(ctx)
		if ctx.Err() != nil {
			return
		}
		if changed, ok := c.count(err == nil, due); changed {
			report(ok, err)
		}
		wait := max(time.Until(next), 0)
		if !c.succeeded {
			wait = min(wait, eagerInterval)
		}
		if pause(ctx, wait) != nil {
			return
		}
	}
}

// counter turns single answers into a state.
type counter struct {
	success, failure  int32 // thresholds
	successes, misses int32 // in a row
	known, ok         bool
	succeeded         bool
}

// count takes an answer; a miss that is not due is none. It tells whether the state changed, and the state.
func (c *counter) count(ok, due bool) (changed, state bool) {
	switch {
	case ok:
		c.succeeded = true
		c.successes, c.misses = c.successes+1, 0
		if c.successes < c.success {
			return false, c.ok
		}
	case due:
		c.successes, c.misses = 0, c.misses+1
		if c.misses < c.failure {
			return false, c.ok
		}
	default:
		return false, c.ok
	}
	changed = !c.known || c.ok != ok
	c.known, c.ok = true, ok
	return changed, ok
}
