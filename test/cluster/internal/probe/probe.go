// Package probe asks a container how it is, as the probes and life-cycle hooks of the Pod API say, and keeps count of the answers.
//
// It knows addresses and a way to run commands, and neither pods nor processes.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Target is the container that is asked.
type Target struct {
	// Address is the pod's.
	Address string
	// Ports are the container's, by which probes may name one.
	Ports []corev1.ContainerPort
	// Exec runs a command in the container.
	Exec func(ctx context.Context, command []string) error
}

// Check asks once, for as long as the probe's timeout, one second by default. An error says what is wrong.
func (t Target) Check(ctx context.Context, p *corev1.Probe) error {
	timeout := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case p.HTTPGet != nil:
		return t.httpGet(ctx, p.HTTPGet)
	case p.TCPSocket != nil:
		return t.connect(ctx, p.TCPSocket.Host, p.TCPSocket.Port)
	case p.GRPC != nil:
		return t.grpcHealth(ctx, p.GRPC)
	case p.Exec != nil:
		return t.Exec(ctx, p.Exec.Command)
	}
	return errors.New("the probe names no way to ask")
}

// Hook does what a life-cycle handler says.
func (t Target) Hook(ctx context.Context, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		return t.Exec(ctx, h.Exec.Command)
	case h.HTTPGet != nil:
		return t.httpGet(ctx, h.HTTPGet)
	case h.TCPSocket != nil:
		return t.connect(ctx, h.TCPSocket.Host, h.TCPSocket.Port)
	case h.Sleep != nil:
		return pause(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
	}
	return errors.New("the hook names nothing to do")
}

func (t Target) port(port intstr.IntOrString) (string, error) {
	if port.Type == intstr.Int {
		return strconv.Itoa(port.IntValue()), nil
	}
	for _, p := range t.Ports {
		if p.Name == port.StrVal {
			return strconv.Itoa(int(p.ContainerPort)), nil
		}
	}
	if _, err := strconv.ParseUint(port.StrVal, 10, 16); err == nil {
		return port.StrVal, nil
	}
	return "", fmt.Errorf("the container has no port named %q", port.StrVal)
}

func (t Target) address(host string, port intstr.IntOrString) (string, error) {
	number, err := t.port(port)
	if err != nil {
		return "", err
	}
	if host == "" {
		host = t.Address
	}
	return net.JoinHostPort(host, number), nil
}

// httpGet takes every status from 200 to 399 for a success and does not follow redirects.
func (t Target) httpGet(ctx context.Context, action *corev1.HTTPGetAction) error {
	address, err := t.address(action.Host, action.Port)
	if err != nil {
		return err
	}
	u, err := url.Parse("/" + strings.TrimPrefix(action.Path, "/"))
	if err != nil {
		return err
	}
	u.Scheme, u.Host = "http", address
	if action.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/1.37")
	for _, h := range action.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			request.Host = h.Value
			continue
		}
		request.Header.Add(h.Name, h.Value)
	}
	// Probes do not verify certificates, and each has a connection of its own.
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", answer.StatusCode)
	}
	return nil
}

func (t Target) connect(ctx context.Context, host string, port intstr.IntOrString) error {
	address, err := t.address(host, port)
	if err != nil {
		return err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

func (t Target) grpcHealth(ctx context.Context, action *corev1.GRPCAction) error {
	address := net.JoinHostPort(t.Address, strconv.Itoa(int(action.Port)))
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer c.Close()
	request := &grpc_health_v1.HealthCheckRequest{}
	if action.Service != nil {
		request.Service = *action.Service
	}
	answer, err := grpc_health_v1.NewHealthClient(c).Check(ctx, request)
	if err != nil {
		return err
	}
	if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("service unhealthy (responded with %q)", answer.Status)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
