package node

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"gatehouse.dev/gatehouse/test/cluster/internal/content"
	"gatehouse.dev/gatehouse/test/cluster/internal/network"
)

// pod is one pod on its way from being bound to the node until nothing of it is left.
type pod struct {
	agent           *Agent
	namespace, name string
	uid             types.UID
	folder          string
	volumes         *content.Volumes // used by live's goroutine, then by refresh's
	inits, mains    []*task

	// changed wakes the goroutine that writes the status.
	changed chan struct{}
	// stopping is closed when the pod is to end, killed when it is to end at once.
	stopping, killed         chan struct{}
	stoppingOnce, killedOnce sync.Once

	mu sync.Mutex // guards what follows, and the state of every task
	// object is the newest that was seen.
	object *corev1.Pod
	// network is nil until the pod has one, and for a pod of the node's network.
	network *network.Pod
	started time.Time
	// problem keeps the pod from starting; it is tried again. failure is for good: a reason and what it is about.
	problem         string
	failure         string
	failureReason   string
	conditionTimes  map[corev1.PodConditionType]transition
	initialized     bool
	networkPrepared bool
}

// transition is when a condition got the status it has.
type transition struct {
	status corev1.ConditionStatus
	time   time.Time
}

func newPod(a *Agent, object *corev1.Pod) *pod {
	folder := filepath.Join(a.Folder, string(object.UID))
	p := &pod{
		agent: a, namespace: object.Namespace, name: object.Name, uid: object.UID, folder: folder,
		volumes: a.resolver.NewVolumes(filepath.Join(folder, "volumes")),
		changed: make(chan struct{}, 1), stopping: make(chan struct{}), killed: make(chan struct{}),
		object: object, started: time.Now(), conditionTimes: map[corev1.PodConditionType]transition{},
	}
	for i := range object.Spec.InitContainers {
		c := &object.Spec.InitContainers[i]
		kind := initTask
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			kind = sidecarTask
		}
		p.inits = append(p.inits, newTask(p, c, kind))
	}
	for i := range object.Spec.Containers {
		p.mains = append(p.mains, newTask(p, &object.Spec.Containers[i], mainTask))
	}
	p.checkStop(object)
	return p
}

// update takes a newer object.
func (p *pod) update(object *corev1.Pod) {
	p.mu.Lock()
	p.object = object
	p.mu.Unlock()
	p.checkStop(object)
	p.wake()
}

// checkStop begins the end of a pod that is deleted.
func (p *pod) checkStop(object *corev1.Pod) {
	if object.DeletionTimestamp == nil {
		return
	}
	p.stoppingOnce.Do(func() { close(p.stopping) })
	if grace := object.DeletionGracePeriodSeconds; grace != nil && *grace == 0 {
		p.kill()
	}
}

// kill ends the pod at once.
func (p *pod) kill() {
	p.stoppingOnce.Do(func() { close(p.stopping) })
	p.killedOnce.Do(func() { close(p.killed) })
}

func (p *pod) wake() {
	select {
	case p.changed <- struct{}{}:
	default: // it is awake
	}
}

// change changes what the status is made of.
func (p *pod) change(f func()) {
	p.mu.Lock()
	f()
	p.mu.Unlock()
	p.wake()
}

// current returns the newest object. Nobody changes it.
func (p *pod) current() *corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.object
}

func (p *pod) event(kind, reason, format string, args ...any) {
	p.agent.events.Eventf(p.current(), kind, reason, format, args...)
}

// live is the pod's life. It returns when nothing of it is left.
func (p *pod) live(ctx context.Context) {
	reports, endReports := context.WithCancel(context.WithoutCancel(ctx))
	var reporter sync.WaitGroup
	reporter.Go(func() { p.report(reports) })
	// The agent's end is the pod's.
	endWatch := context.AfterFunc(ctx, p.kill)
	defer endWatch()

	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-p.stopping
		cancel()
	}()
	p.run(run)
	// A pod whose containers have ended for good stays until it is deleted.
	<-stopped
	endReports()
	reporter.Wait()
	if ctx.Err() == nil {
		p.writeStatus(ctx)
	}
	p.mu.Lock()
	net := p.network
	p.mu.Unlock()
	if net != nil {
		net.Remove()
	}
	if err := os.RemoveAll(p.folder); err != nil {
		p.agent.Logger.Warn("a pod's folder is not removed", "folder", p.folder, "error", err)
	}
	if ctx.Err() == nil {
		p.agent.remove(ctx, p.current())
	}
}

// run runs the pod's containers in their order until all have ended: init containers one after the other, the others together. Sidecars,
// which are init containers that go on, end after the others.
func (p *pod) run(ctx context.Context) {
	if !p.prepare(ctx) {
		return
	}
	var sidecars, mains, others sync.WaitGroup
	sidecarContext, endSidecars := context.WithCancel(context.WithoutCancel(ctx))
	refreshContext, endRefresh := context.WithCancel(ctx)
	others.Go(func() { p.refresh(refreshContext) })
	defer func() {
		endSidecars()
		sidecars.Wait()
		endRefresh()
		others.Wait()
	}()
	for _, t := range p.inits {
		if t.kind == sidecarTask {
			sidecars.Go(func() { t.run(sidecarContext) })
			select {
			case <-t.up:
			case <-ctx.Done():
				return
			}
			continue
		}
		if !t.run(ctx) {
			if ctx.Err() == nil {
				p.change(func() { p.failure = "init container " + t.spec.Name + " failed" })
			}
			return
		}
	}
	p.change(func() { p.initialized = true })
	for _, t := range p.mains {
		mains.Go(func() { t.run(ctx) })
	}
	mains.Wait()
}

// How soon a pod that cannot be prepared is tried again.
const prepareInterval = 500 * time.Millisecond

// prepare gives the pod its network and its volumes. It returns false if the pod ended or failed instead.
func (p *pod) prepare(ctx context.Context) bool {
	if p.refuse() {
		return false
	}
	for {
		err := p.tryPrepare(ctx)
		p.change(func() {
			p.problem = ""
			if err != nil {
				p.problem = err.Error()
			}
		})
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		p.event(corev1.EventTypeWarning, "FailedMount", "%v", err)
		if !sleep(ctx, prepareInterval) {
			return false
		}
	}
}

// refuse ends a pod that can never run here, as a kubelet's admission does.
func (p *pod) refuse() bool {
	reason, message := refusal(p.current())
	if reason == "" {
		return false
	}
	p.change(func() { p.failureReason, p.failure = reason, message })
	p.event(corev1.EventTypeWarning, reason, "%s", message)
	return true
}

func (p *pod) tryPrepare(ctx context.Context) error {
	object := p.current()
	if err := os.MkdirAll(p.folder, 0o755); err != nil {
		return err
	}
	if !object.Spec.HostNetwork && p.network == nil { // only this goroutine writes it
		net, err := p.agent.network.Add(sysctls(object))
		if err != nil {
			return err
		}
		p.change(func() { p.network = net })
	}
	p.change(func() { p.networkPrepared = true })
	return p.volumes.Write(ctx, object, p.facts())
}

// How often the files of volumes are compared with what they come from.
const refreshInterval = 10 * time.Second

// refresh keeps the volumes' files up to date.
func (p *pod) refresh(ctx context.Context) {
	for sleep(ctx, refreshInterval) {
		if err := p.volumes.Write(ctx, p.current(), p.facts()); err != nil && ctx.Err() == nil {
			p.agent.Logger.Warn("volumes are not refreshed", "namespace", p.namespace, "pod", p.name, "error", err)
		}
	}
}

// address is the pod's, "" as long as it has none.
func (p *pod) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addressLocked()
}

// addressLocked is address for who holds p.mu.
func (p *pod) addressLocked() string {
	switch {
	case p.network != nil:
		return p.network.Address.String()
	case p.networkPrepared:
		return p.agent.Ranges.Node().String()
	}
	return ""
}

func (p *pod) facts() content.Facts {
	return content.Facts{PodIP: p.address(), NodeIP: p.agent.Ranges.Node().String(), Allocatable: allocatable()}
}

// grace is how long the pod's containers get to end by themselves.
func (p *pod) grace() time.Duration {
	object := p.current()
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if s := object.Spec.TerminationGracePeriodSeconds; s != nil {
		seconds = *s
	}
	if s := object.DeletionGracePeriodSeconds; object.DeletionTimestamp != nil && s != nil {
		seconds = *s
	}
	return time.Duration(seconds) * time.Second
}
