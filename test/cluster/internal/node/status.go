package node

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// How soon a status that could not be written is tried again.
const statusInterval = 300 * time.Millisecond

// report writes the pod's status whenever it changes, until ctx ends.
func (p *pod) report(ctx context.Context) {
	var written *corev1.PodStatus
	for {
		status := p.status()
		if written == nil || !reflect.DeepEqual(written, status) {
			switch err := p.write(ctx, status); {
			case err == nil:
				written = status
			case ctx.Err() != nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err):
				// The object is gone, and so will be the pod.
			default:
				p.agent.Logger.Warn("pod's status is not written", "namespace", p.namespace, "pod", p.name, "error", err)
				if !sleep(ctx, statusInterval) {
					return
				}
				continue
			}
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			return
		}
	}
}

// writeStatus writes the status once, as it is at the end.
func (p *pod) writeStatus(ctx context.Context) {
	if err := p.write(ctx, p.status()); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		p.agent.Logger.Warn("pod's last status is not written", "namespace", p.namespace, "pod", p.name, "error", err)
	}
}

func (p *pod) write(ctx context.Context, status *corev1.PodStatus) error {
	// The identifier keeps the patch from another pod of the same name.
	patch, err := json.Marshal(struct {
		Metadata struct {
			UID types.UID `json:"uid"`
		} `json:"metadata"`
		Status *corev1.PodStatus `json:"status"`
	}{struct {
		UID types.UID `json:"uid"`
	}{p.uid}, status})
	if err != nil {
		return err
	}
	return p.agent.patchStatus(ctx, p.current(), patch)
}

// status is what a kubelet would report of the pod.
func (p *pod) status() *corev1.PodStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	started, node := metav1.NewTime(p.started), p.agent.Ranges.Node().String()
	s := &corev1.PodStatus{
		StartTime: &started, HostIP: node, HostIPs: []corev1.HostIP{{IP: node}}, Message: p.problem, ObservedGeneration: p.object.Generation,
		QOSClass: p.object.Status.QOSClass,
	}
	if address := p.addressLocked(); address != "" {
		s.PodIP, s.PodIPs = address, []corev1.PodIP{{IP: address}}
	}
	for _, t := range p.inits {
		s.InitContainerStatuses = append(s.InitContainerStatuses, t.status())
	}
	for _, t := range p.mains {
		s.ContainerStatuses = append(s.ContainerStatuses, t.status())
	}
	s.Phase = phase(s.ContainerStatuses, p.object.Spec.RestartPolicy, p.initialized)
	if p.failure != "" {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, p.failureReason, p.failure
	}
	s.Conditions = p.conditions(s)
	return s
}

func (t *task) status() corev1.ContainerStatus {
	started := t.started
	return corev1.ContainerStatus{
		Name: t.spec.Name, Image: t.spec.Image, ImageID: "process://" + ImageName(t.spec.Image), ContainerID: t.id,
		State: t.state, LastTerminationState: t.last, Ready: t.ready, Started: &started, RestartCount: t.restarts,
	}
}

// phase sums up the containers (PodStatus.phase): Pending until all have run at least once, then Running as long as one runs or is started
// again, then Succeeded or Failed.
func phase(containers []corev1.ContainerStatus, policy corev1.RestartPolicy, initialized bool) corev1.PodPhase {
	running, waiting, failed := 0, 0, 0
	for _, c := range containers {
		switch {
		case c.State.Running != nil:
			running++
		case c.State.Waiting != nil && c.LastTerminationState.Terminated != nil:
			running++ // it is between two runs
		case c.State.Waiting != nil:
			waiting++
		case c.State.Terminated != nil && c.State.Terminated.ExitCode != 0:
			failed++
		}
	}
	switch {
	case !initialized || waiting > 0:
		return corev1.PodPending
	case running > 0 || policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && failed > 0:
		return corev1.PodRunning
	case failed > 0:
		return corev1.PodFailed
	}
	return corev1.PodSucceeded
}

// conditions are the pod's, without those that others own. The caller holds p.mu.
func (p *pod) conditions(s *corev1.PodStatus) []corev1.PodCondition {
	unready := p.unready(s)
	ended := s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodFailed
	reason, message := "", ""
	switch {
	case s.Phase == corev1.PodSucceeded:
		reason = "PodCompleted"
	case s.Phase == corev1.PodFailed:
		reason = "PodFailed"
	case len(unready) > 0:
		reason, message = "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	}
	containersReady := len(unready) == 0 && !ended
	ready := containersReady
	readyReason, readyMessage := reason, message
	if missing := p.missingGates(); ready && len(missing) > 0 {
		ready = false
		readyReason, readyMessage = "ReadinessGatesNotReady", "the status of pod readiness gates is not True: "+strings.Join(missing, " ")
	}
	initReason := ""
	if !p.initialized {
		initReason = "ContainersNotInitialized"
	}
	return []corev1.PodCondition{
		p.condition(corev1.PodReadyToStartContainers, s.PodIP != "" && !ended, "", ""),
		p.condition(corev1.PodInitialized, p.initialized, initReason, ""),
		p.condition(corev1.ContainersReady, containersReady, reason, message),
		p.condition(corev1.PodReady, ready, readyReason, readyMessage),
	}
}

// unready names the containers that keep the pod from being ready: its own, and sidecars.
func (p *pod) unready(s *corev1.PodStatus) []string {
	var names []string
	for i, t := range p.inits {
		if t.kind == sidecarTask && !s.InitContainerStatuses[i].Ready {
			names = append(names, t.spec.Name)
		}
	}
	for _, c := range s.ContainerStatuses {
		if !c.Ready {
			names = append(names, c.Name)
		}
	}
	return names
}

// missingGates lists the readiness gates that others have not opened.
func (p *pod) missingGates() []string {
	var missing []string
	for _, gate := range p.object.Spec.ReadinessGates {
		open := false
		for _, c := range p.object.Status.Conditions {
			open = open || c.Type == gate.ConditionType && c.Status == corev1.ConditionTrue
		}
		if !open {
			missing = append(missing, string(gate.ConditionType))
		}
	}
	return missing
}

func (p *pod) condition(kind corev1.PodConditionType, ok bool, reason, message string) corev1.PodCondition {
	status := corev1.ConditionFalse
	if ok {
		status = corev1.ConditionTrue
	}
	last := p.conditionTimes[kind]
	if last.status != status {
		last = transition{status, time.Now()}
		p.conditionTimes[kind] = last
	}
	return corev1.PodCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(last.time),
		ObservedGeneration: p.object.Generation}
}
