package node

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"gatehouse.dev/gatehouse/test/cluster/internal/container"
	"gatehouse.dev/gatehouse/test/cluster/internal/probe"
)

// watch runs the postStart hook and the probes of a running container until ctx ends. A container that is to be stopped is sent to
// unhealthy with the probe that said so.
func (t *task) watch(ctx context.Context, target probe.Target, process *container.Process, unhealthy chan<- *corev1.Probe) {
	if life := t.spec.Lifecycle; life != nil && life.PostStart != nil {
		if err := target.Hook(ctx, life.PostStart); err != nil && ctx.Err() == nil {
			t.pod.event(corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: %v", err)
			offer(unhealthy, &corev1.Probe{})
			return
		}
	}
	if !t.awaitStart(ctx, target, unhealthy) {
		return
	}
	t.pod.change(func() { t.started = true })
	t.upOnce.Do(func() { close(t.up) })
	var group sync.WaitGroup
	defer group.Wait()
	if liveness := t.spec.LivenessProbe; liveness != nil {
		group.Go(func() {
			probe.Watch(ctx, liveness, t.check(target, liveness, "Liveness"), func(ok bool, _ error) {
				if !ok {
					offer(unhealthy, liveness)
				}
			})
		})
	}
	readiness := t.spec.ReadinessProbe
	if readiness == nil {
		if t.kind == mainTask {
			t.awaitListener(ctx, process)
		}
		t.setReady(ctx, true)
		return
	}
	probe.Watch(ctx, readiness, t.check(target, readiness, "Readiness"), func(ok bool, _ error) { t.setReady(ctx, ok) })
}

// offer sends the first of what may be several complaints.
func offer(unhealthy chan<- *corev1.Probe, p *corev1.Probe) {
	select {
	case unhealthy <- p:
	default:
	}
}

func (t *task) setReady(ctx context.Context, ready bool) {
	t.pod.change(func() {
		// A container that has ended in the meantime is not ready any more.
		t.ready = ready && ctx.Err() == nil && t.state.Running != nil
	})
}

// awaitStart returns false if the container did not start as its startup probe wants.
func (t *task) awaitStart(ctx context.Context, target probe.Target, unhealthy chan<- *corev1.Probe) bool {
	startup := t.spec.StartupProbe
	if startup == nil {
		return ctx.Err() == nil
	}
	up := false
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	probe.Watch(ctx, startup, t.check(target, startup, "Startup"), func(ok bool, _ error) {
		if up = ok; !ok {
			offer(unhealthy, startup)
		}
		cancel()
	})
	return up
}

// check is a probe's question, whose failures become events.
func (t *task) check(target probe.Target, p *corev1.Probe, name string) func(context.Context) error {
	return func(ctx context.Context) error {
		err := target.Check(ctx, p)
		if err != nil && ctx.Err() == nil {
			t.pod.event(corev1.EventTypeWarning, "Unhealthy", "%s probe failed: %v", name, err)
		}
		return err
	}
}

// A container without a readiness probe counts as ready when it runs. Here the first answers would come too early: in a real cluster an image
// is pulled and a container made before anybody hears of the pod, here it takes milliseconds. So one that declares ports is ready when it
// listens on a port, or after listenTime in any case.
const (
	listenTime     = 2 * time.Second
	listenInterval = 20 * time.Millisecond
)

func (t *task) awaitListener(ctx context.Context, process *container.Process) {
	if len(t.spec.Ports) == 0 {
		return
	}
	for end := time.Now().Add(listenTime); time.Now().Before(end) && !listens(process.Pid()); {
		if !sleep(ctx, listenInterval) {
			return
		}
	}
}

// listens tells whether there is a listener, or a bound UDP socket, in a process's network namespace. It reads the tables that proc(5)
// describes:
//
//	sl  local_address rem_address   st ...
//	 0: 00000000:1F90 00000000:0000 0A ...
func listens(pid int) bool {
	const listening = "0A"
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/" + table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n")[1:] {
			words := strings.Fields(line)
			if len(words) > 3 && (strings.HasPrefix(table, "udp") || words[3] == listening) {
				return true
			}
		}
	}
	return false
}
