// Package plane runs a Kubernetes control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kube-proxy, each a process
// of the one program that controlplane builds, in the network namespace of the caller. Everything they write goes to one folder.
//
// It knows the programs and their flags, and nothing of nodes and pods.
package plane

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"gatehouse.dev/gatehouse/test/cluster/internal/network"
	"gatehouse.dev/gatehouse/test/cluster/internal/pki"
)

// Options say where and with what a control plane runs. All are needed.
type Options struct {
	// Program is the file that controlplane built.
	Program string
	// Folder takes keys, data and logs. A new control plane begins with an empty one.
	Folder string
	Ranges network.Ranges
	// Node is the name of the node that kube-proxy works for.
	Node string
}

// Ports of the control plane, all on addresses of the node.
const (
	apiPort   = 6443
	etcdPort  = 2379
	peerPort  = 2380
	proxyPort = 10256 // kube-proxy's health
)

// Plane is a running control plane.
type Plane struct {
	options   Options
	authority *pki.Authority
	// Admin is the kubeconfig of a cluster administrator. KubeletCertificate and KubeletKey are what the node's own server shows.
	Admin, KubeletCertificate, KubeletKey string

	processes []*process
	died      chan error
}

type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// Start starts a control plane and returns when its API answers. The caller must Stop it, even after an error.
func Start(ctx context.Context, o Options) (*Plane, error) {
	p := &Plane{options: o, died: make(chan error, 8)}
	if err := p.prepare(); err != nil {
		return p, fmt.Errorf("prepare control plane: %w", err)
	}
	if err := p.run(p.etcd(), p.apiServer()); err != nil {
		return p, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", p.Admin)
	if err != nil {
		return p, err
	}
	if err := p.wait(ctx, "kube-apiserver", func(ctx context.Context) error { return apiReady(ctx, config) }); err != nil {
		return p, err
	}
	return p, p.run(p.controllerManager(), p.scheduler(), p.proxy())
}

// CertificateAuthority is the file of the authority that signed every certificate of the cluster.
func (p *Plane) CertificateAuthority() string { return p.authority.CertificateFile() }

// Died tells of a part that ended by itself.
func (p *Plane) Died() <-chan error { return p.died }

// run starts programs.
func (p *Plane) run(commands ...[]string) error {
	for _, command := range commands {
		if err := p.start(command[0], command[1:]); err != nil {
			return fmt.Errorf("start %s: %w", command[0], err)
		}
	}
	return nil
}

func (p *Plane) start(name string, flags []string) error {
	path := filepath.Join(p.options.Folder, "log", name+".log")
	log, err := os.Create(path)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.options.Program, append([]string{name}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = p.options.Folder
	// nft, which kube-proxy runs, is where an ordinary user's PATH may not lead.
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	proc := &process{name: name, cmd: cmd, log: path, done: make(chan struct{})}
	p.processes = append(p.processes, proc)
	go func() {
		err := cmd.Wait()
		close(proc.done)
		select {
		case p.died <- fmt.Errorf("%s ended: %v; %s says:\n%s", name, err, path, tail(path)):
		default: // one is enough
		}
	}()
	return nil
}

// tail returns the last lines of a log.
func tail(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-12):], []byte("\n"))
}

// How often something that is starting is asked whether it is ready.
const pollInterval = 50 * time.Millisecond

// wait waits until a check succeeds, a part dies, or ctx ends.
func (p *Plane) wait(ctx context.Context, name string, check func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case died := <-p.died:
			return died
		case <-ctx.Done():
			return fmt.Errorf("%s did not become ready: %w; see the logs in %s", name, err, filepath.Join(p.options.Folder, "log"))
		}
	}
}

func apiReady(ctx context.Context, config *rest.Config) error {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	return get(ctx, client, config.Host+"/readyz")
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, answer.Status)
	}
	return nil
}

// WaitRouting waits until kube-proxy has written its first rules.
func (p *Plane) WaitRouting(ctx context.Context) error {
	return p.wait(ctx, "kube-proxy", func(ctx context.Context) error {
		return get(ctx, http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/healthz", proxyPort))
	})
}

// Stop ends every part. Their data is of no use to the next control plane, so none is given time to put it in order.
func (p *Plane) Stop() {
	for _, proc := range p.processes {
		_ = proc.cmd.Process.Kill()
	}
	for _, proc := range p.processes {
		<-proc.done
	}
}

// prepare makes folders, keys and configurations.
func (p *Plane) prepare() error {
	r, folder := p.options.Ranges, p.options.Folder
	if err := os.MkdirAll(filepath.Join(folder, "log"), 0o755); err != nil {
		return err
	}
	var err error
	if p.authority, err = pki.NewAuthority(filepath.Join(folder, "pki")); err != nil {
		return err
	}
	servers := map[string]pki.Identity{
		"apiserver": {Name: "kube-apiserver", Addresses: []netip.Addr{r.Node(), r.API(), netip.MustParseAddr("127.0.0.1")}, Hosts: []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
		// What the API server shows to the node when it asks for logs, and the node to the API server.
		"kubelet-client": {Name: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		"kubelet":        {Name: "system:node:" + p.options.Node, Addresses: []netip.Addr{r.Node()}},
	}
	for name, id := range servers {
		if _, _, err := p.authority.Issue(name, id); err != nil {
			return err
		}
	}
	p.KubeletCertificate, p.KubeletKey = p.authority.Path("kubelet.crt"), p.authority.Path("kubelet.key")
	if _, _, err := p.authority.SigningKey("service-account"); err != nil {
		return err
	}
	users := map[string]pki.Identity{
		"kubeconfig": {Name: "admin", Groups: []string{"system:masters"}},
		// Its own role is only enough to make an account for each controller, which takes longer.
		"controller-manager": {Name: "system:kube-controller-manager", Groups: []string{"system:masters"}},
		"scheduler":          {Name: "system:kube-scheduler"},
		"proxy":              {Name: "system:kube-proxy"},
	}
	server := "https://" + netip.AddrPortFrom(r.Node(), apiPort).String()
	for name, id := range users {
		if err := p.authority.Kubeconfig(p.config(name), server, id); err != nil {
			return err
		}
	}
	p.Admin = p.config("kubeconfig")
	return os.WriteFile(p.config("proxy.yaml"), p.proxyConfiguration(), 0o600)
}

// config is where the configuration of a part lies.
func (p *Plane) config(name string) string { return filepath.Join(p.options.Folder, name) }
