package publish

import (
	"context"
	"errors"
	"sync"
	"testing"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/gateway/config"
)

// target notes what it is given and refuses what has a listener.
type target struct {
	mu   sync.Mutex
	busy bool
	got  []*config.Config
}

func (t *target) Apply(_ context.Context, c *config.Config) (config.Applied, error) {
	t.mu.Lock()
	if t.busy {
		panic("two configurations at once")
	}
	t.busy = true
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.busy = false
		t.got = append(t.got, c)
	}()
	if len(c.Listeners) > 0 {
		return config.Applied{}, errors.New("refused")
	}
	return config.Applied{Clusters: map[string]error{"c": errors.New("broken")}}, nil
}

func TestPublish(t *testing.T) {
	to := &target{}
	p := New(to)
	if p.Running() == nil || len(p.Running().Listeners) != 0 {
		t.Error("before the first, the empty configuration runs")
	}
	good, bad := &config.Config{}, &config.Config{Listeners: []*config.Listener{{Name: "l"}}}
	if ack := p.Publish(t.Context(), &plan.Plan{Config: good}); ack.Version != 1 || ack.Err != nil || ack.Applied.Clusters["c"] == nil || p.Running() != good {
		t.Errorf("got %+v", ack)
	}
	if ack := p.Publish(t.Context(), &plan.Plan{Config: bad}); ack.Version != 2 || ack.Err == nil || p.Running() != good {
		t.Errorf("got %+v", ack)
	}
}

// TestOneAtATime: whoever publishes, the target sees one configuration after another, and the last is what runs.
func TestOneAtATime(t *testing.T) {
	to := &target{}
	p := New(to)
	var publishing sync.WaitGroup
	seen := make([]bool, 21)
	var mu sync.Mutex
	for range 20 {
		publishing.Go(func() {
			ack := p.Publish(t.Context(), &plan.Plan{Config: &config.Config{}})
			mu.Lock()
			defer mu.Unlock()
			if seen[ack.Version] {
				t.Errorf("version %d twice", ack.Version)
			}
			seen[ack.Version] = true
		})
	}
	publishing.Wait()
	if len(to.got) != 20 || p.Running() != to.got[19] {
		t.Errorf("%d were applied", len(to.got))
	}
}
