package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gatehouse.dev/gatehouse/test/cluster/internal/container"
	"gatehouse.dev/gatehouse/test/cluster/internal/probe"
)

type taskKind int

const (
	mainTask    taskKind = iota
	initTask             // runs once, before the others
	sidecarTask          // begins among the init containers and goes on
)

// task is one container of a pod.
type task struct {
	pod  *pod
	spec *corev1.Container
	kind taskKind
	// up is closed when the container has started (startup probe included) for the first time.
	up     chan struct{}
	upOnce sync.Once

	// What follows is guarded by pod.mu.
	state, last    corev1.ContainerState
	ending         corev1.ContainerState // how the newest run ended, which becomes last with the next
	restarts       int32
	ready, started bool
	id             string
	process        *container.Process // nil when none runs
	log, previous  *logFile
}

func newTask(p *pod, spec *corev1.Container, kind taskKind) *task {
	return &task{pod: p, spec: spec, kind: kind, up: make(chan struct{}),
		state: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}}
}

// Delays before a container is started again: none after the first end, then firstDelay, doubled up to longestDelay. One that ran for
// calmTime begins anew. A kubelet waits ten times as long; tests cannot.
const (
	firstDelay   = time.Second
	longestDelay = 30 * time.Second
	calmTime     = 30 * time.Second
	// startInterval is how soon a container that could not be started is tried again.
	startInterval = time.Second
)

// run runs the container, again and again as the restart policy says, until it ends for good or ctx ends it. It tells whether the container
// did what it was to do.
func (t *task) run(ctx context.Context) bool {
	delay := time.Duration(0)
	for ctx.Err() == nil {
		process, err := t.start(ctx)
		if err != nil {
			t.waiting(startProblem(err), err.Error())
			t.pod.event(corev1.EventTypeWarning, "Failed", "Error: %v", err)
			if !sleep(ctx, startInterval) {
				return false
			}
			continue
		}
		began := time.Now()
		t.attend(ctx, process)
		code := process.Code()
		more := ctx.Err() == nil && t.again(code)
		t.ended(code, began, more && delay > 0)
		if !more {
			return code == 0
		}
		if time.Since(began) > calmTime {
			delay = 0
		}
		if delay > 0 {
			t.pod.event(corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s", t.spec.Name)
		}
		if !sleep(ctx, delay) {
			return false
		}
		delay = min(max(2*delay, firstDelay), longestDelay)
		t.pod.change(func() { t.restarts++ })
	}
	return false
}

// again tells whether a container that ended is started anew.
func (t *task) again(code int) bool {
	policy := t.pod.current().Spec.RestartPolicy
	switch {
	case t.kind == sidecarTask:
		return true
	case t.kind == initTask && policy == corev1.RestartPolicyAlways:
		policy = corev1.RestartPolicyOnFailure
	}
	return policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && code != 0
}

// startProblem is the reason of the waiting state after a failed start, in a kubelet's words.
func startProblem(err error) string {
	switch {
	case errors.Is(err, ErrNoImage):
		return "ErrImagePull"
	case errors.Is(err, errConfig):
		return "CreateContainerConfigError"
	}
	return "RunContainerError"
}

func (t *task) waiting(reason, message string) {
	t.pod.change(func() {
		t.ready = false
		t.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	})
}

// start starts the program and makes it known.
func (t *task) start(ctx context.Context) (*container.Process, error) {
	spec, err := t.containerSpec(ctx)
	if err != nil {
		return nil, err
	}
	p := t.pod
	p.mu.Lock()
	count, old := t.restarts, t.log
	p.mu.Unlock()
	log, err := newLogFile(filepath.Join(p.folder, fmt.Sprintf("%s-%d.log", t.spec.Name, count)))
	if err != nil {
		return nil, err
	}
	var namespace *os.File
	p.mu.Lock()
	if p.network != nil {
		namespace = p.network.Namespace
	}
	p.mu.Unlock()
	process, err := container.Start(spec, namespace, log)
	if err != nil {
		log.Close()
		return nil, err
	}
	p.change(func() {
		if t.previous != nil && t.previous != old {
			_ = os.Remove(t.previous.path)
		}
		t.previous, t.log = old, log
		t.process, t.id = process, fmt.Sprintf("process://%s-%s-%d", p.uid, t.spec.Name, count)
		t.ready, t.started = false, false
		t.last = t.ending
		t.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
	})
	p.event(corev1.EventTypeNormal, "Started", "Started container %s", t.spec.Name)
	return process, nil
}

// attend watches over the running container until it has ended: because it wanted to, because a probe said that it is not alive, or because
// ctx ended.
func (t *task) attend(ctx context.Context, process *container.Process) {
	target := t.target(process)
	watch, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	unhealthy := make(chan *corev1.Probe, 1)
	var watchers sync.WaitGroup
	watchers.Go(func() { t.watch(watch, target, process, unhealthy) })
	defer watchers.Wait()
	defer endWatch()
	select {
	case <-process.Done():
	case <-ctx.Done():
		t.stop(process, target, t.pod.grace())
	case p := <-unhealthy:
		grace := t.pod.grace()
		if s := p.TerminationGracePeriodSeconds; s != nil {
			grace = time.Duration(*s) * time.Second
		}
		t.stop(process, target, grace)
	}
}

func (t *task) target(process *container.Process) probe.Target {
	return probe.Target{Address: t.pod.address(), Ports: t.spec.Ports, Exec: func(ctx context.Context, command []string) error {
		var output bytes.Buffer
		err := process.Exec(ctx, command, container.Streams{Out: &output, Err: &output})
		if err != nil && output.Len() > 0 {
			return fmt.Errorf("%w: %s", err, bytes.TrimSpace(output.Bytes()))
		}
		return err
	}}
}

// What a container gets at least after its preStop hook used up the time.
const leastGrace = 2 * time.Second

// stop ends the container as the Pod API says: the preStop hook, the stop signal, and SIGKILL when the time is over.
func (t *task) stop(process *container.Process, target probe.Target, grace time.Duration) {
	t.pod.event(corev1.EventTypeNormal, "Killing", "Stopping container %s", t.spec.Name)
	end := time.Now().Add(grace)
	if life := t.spec.Lifecycle; life != nil && life.PreStop != nil && grace > 0 {
		ctx, cancel := context.WithDeadline(context.Background(), end)
		stopKilled := t.cancelWhenKilled(cancel, process)
		if err := target.Hook(ctx, life.PreStop); err != nil {
			t.pod.event(corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %v", err)
		}
		stopKilled()
		end = laterOf(end, time.Now().Add(min(leastGrace, grace)))
	}
	process.Stop(t.stopSignal(), time.Until(end), t.pod.killed)
}

// cancelWhenKilled calls cancel when the pod is to end at once, or the process has ended, until the returned function is called.
func (t *task) cancelWhenKilled(cancel context.CancelFunc, process *container.Process) func() {
	done := make(chan struct{})
	go func() {
		select {
		case <-t.pod.killed:
		case <-process.Done():
		case <-done:
		}
		cancel()
	}()
	return func() { close(done) }
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (t *task) stopSignal() syscall.Signal {
	if life := t.spec.Lifecycle; life != nil && life.StopSignal != nil {
		if signal := unix.SignalNum(string(*life.StopSignal)); signal != 0 {
			return signal
		}
	}
	return syscall.SIGTERM
}

// ended makes the end known. A container that waits for its next start says so.
func (t *task) ended(code int, began time.Time, backOff bool) {
	reason := "Completed"
	if code != 0 {
		reason = "Error"
	}
	t.pod.change(func() {
		t.log.Close()
		t.process, t.started = nil, false
		t.ready = t.kind == initTask && code == 0
		terminated := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: int32(code), Reason: reason, StartedAt: metav1.NewTime(began), FinishedAt: metav1.Now(), ContainerID: t.id,
		}}
		t.state, t.ending = terminated, terminated
		if backOff {
			t.last = terminated
			t.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
				Reason: "CrashLoopBackOff", Message: "back-off restarting failed container " + t.spec.Name,
			}}
		}
	})
}

// output is the log of the container's newest run, or of the one before. It is nil if there was none.
func (t *task) output(previous bool) *logFile {
	t.pod.mu.Lock()
	defer t.pod.mu.Unlock()
	if previous {
		return t.previous
	}
	return t.log
}

// running returns the container's process, nil if none runs.
func (t *task) running() *container.Process {
	t.pod.mu.Lock()
	defer t.pod.mu.Unlock()
	return t.process
}
