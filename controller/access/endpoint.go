package access

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	discoveryapply "k8s.io/client-go/applyconfigurations/discovery/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
)

const (
	// ServiceName is the Service without a selector through which proxies reach the leading controller.
	ServiceName = "gatehouse-controller"
	// ServicePort is its port.
	ServicePort = 18000
	// endpointEvery is how often the endpoint is set right, should somebody have changed it.
	endpointEvery = 30 * time.Second
	// firstPortName is the name of the Service's port where the Service cannot be read.
	firstPortName = "wire"
)

// Endpoint makes one address the only endpoint of the controller's Service.
type Endpoint struct {
	Slices   discoveryclient.EndpointSliceInterface
	Services coreclient.ServiceInterface
	Address  netip.Addr
	Port     uint16
	Manager  string
	Logger   *slog.Logger
}

// Run keeps the endpoint until ctx ends. The slice stays then: the next leader writes its own address into it.
func (e *Endpoint) Run(ctx context.Context) {
	said := ""
	for {
		err := e.Publish(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && said != "ok":
			said = "ok"
			e.Logger.Info("this controller is the endpoint of its Service", "service", ServiceName, "address", e.Address, "port", e.Port)
		case err != nil && said != err.Error():
			said = err.Error()
			e.Logger.Error("the endpoint of the controller's Service cannot be written; proxies cannot find this controller", "error", err)
		}
		wait := endpointEvery
		if err != nil {
			wait = 2 * time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Publish writes the endpoint. The API server changes nothing when nothing differs.
func (e *Endpoint) Publish(ctx context.Context) error {
	family := discoveryv1.AddressTypeIPv4
	name := ServiceName
	if e.Address.Is6() {
		family, name = discoveryv1.AddressTypeIPv6, ServiceName+"-ipv6" // the type of a slice cannot be changed
	}
	slice := discoveryapply.EndpointSlice(name, "").
		WithLabels(map[string]string{discoveryv1.LabelServiceName: ServiceName, discoveryv1.LabelManagedBy: "gatehouse.dev"}).
		WithAddressType(family).
		WithEndpoints(discoveryapply.Endpoint().WithAddresses(e.Address.String()).WithConditions(discoveryapply.EndpointConditions().WithReady(true))).
		WithPorts(discoveryapply.EndpointPort().WithName(e.portName(ctx)).WithPort(int32(e.Port)).WithProtocol("TCP"))
	slice.Namespace = nil
	if _, err := e.Slices.Apply(ctx, slice, metav1.ApplyOptions{FieldManager: e.Manager, Force: true}); err != nil {
		return fmt.Errorf("EndpointSlice %s: %w", name, err)
	}
	return nil
}

// portName returns the name of the Service's port, which an endpoint's port must have too.
func (e *Endpoint) portName(ctx context.Context) string {
	service, err := e.Services.Get(ctx, ServiceName, metav1.GetOptions{})
	if err != nil || len(service.Spec.Ports) == 0 {
		return firstPortName
	}
	return service.Spec.Ports[0].Name
}
