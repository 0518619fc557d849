package node

import (
	"context"
	"runtime"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// Version of the kubelet that the node says it is.
const kubeletVersion = "v1.37.1"

// ServerPort is where the node answers the API server.
const ServerPort = 10250

const (
	leaseNamespace   = "kube-node-lease"
	leaseSeconds     = 40
	heartbeatPeriod  = 10 * time.Second
	registerInterval = 200 * time.Millisecond
)

// allocatable is what the node offers: enough for the scheduler never to refuse, because nothing here is limited.
func allocatable() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("256"), corev1.ResourceMemory: resource.MustParse("1Ti"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"), corev1.ResourcePods: resource.MustParse("1000"),
	}
}

// register makes the node known and ready, as soon as the API server lets it.
func (a *Agent) register(ctx context.Context) error {
	var err error
	for {
		if err = a.tryRegister(ctx); err == nil {
			return nil
		}
		a.Logger.Debug("node is not registered yet", "error", err)
		if !sleep(ctx, registerInterval) {
			return err
		}
	}
}

func (a *Agent) tryRegister(ctx context.Context) error {
	nodes := a.Client.CoreV1().Nodes()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.Name, Labels: map[string]string{
		corev1.LabelHostname: a.Name, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
	}}}
	if _, err := nodes.Create(ctx, node, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := nodes.Get(ctx, a.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Status = a.nodeStatus()
		current, err = nodes.UpdateStatus(ctx, current, metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		// New nodes are tainted as not ready until a controller looks at them. This one is.
		current.Spec.Taints = nil
		_, err = nodes.Update(ctx, current, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return a.renewLease(ctx)
}

func (a *Agent) nodeStatus() corev1.NodeStatus {
	now := metav1.Now()
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	return corev1.NodeStatus{
		Capacity: allocatable(), Allocatable: allocatable(),
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: a.Ranges.Node().String()}, {Type: corev1.NodeHostName, Address: a.Name},
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: ServerPort}},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion: kubeletVersion, OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
			OSImage: "local processes", ContainerRuntimeVersion: "process://1",
		},
		Conditions: []corev1.NodeCondition{
			condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"),
			condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"),
			condition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID"),
			condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
		},
	}
}

// heartbeat keeps the node alive in the eyes of the node controller.
func (a *Agent) heartbeat(ctx context.Context) {
	for sleep(ctx, heartbeatPeriod) {
		if err := a.renewLease(ctx); err != nil && ctx.Err() == nil {
			a.Logger.Warn("the node's lease is not renewed", "error", err)
		}
	}
}

func (a *Agent) renewLease(ctx context.Context) error {
	leases := a.Client.CoordinationV1().Leases(leaseNamespace)
	now, seconds := metav1.NowMicro(), int32(leaseSeconds)
	spec := coordinationv1.LeaseSpec{HolderIdentity: &a.Name, LeaseDurationSeconds: &seconds, RenewTime: &now}
	current, err := leases.Get(ctx, a.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		first := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: a.Name, Namespace: leaseNamespace}, Spec: spec}
		_, err = leases.Create(ctx, first, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	current.Spec = spec
	_, err = leases.Update(ctx, current, metav1.UpdateOptions{})
	return err
}

// patchStatus writes a pod's status.
func (a *Agent) patchStatus(ctx context.Context, object *corev1.Pod, patch []byte) error {
	_, err := a.Client.CoreV1().Pods(object.Namespace).Patch(ctx, object.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
