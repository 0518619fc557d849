package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"gatehouse.dev/gatehouse/bench/internal/origin"
	"gatehouse.dev/gatehouse/bench/internal/proc"
)

// host is what a run has around it: CPUs, a folder, a certificate, the origin and the tools.
type host struct {
	proxyCPUs, loadCPUs []int
	dir                 string
	cert, key           string
	origin              *proc.Process
	http, grpc          string
	wrk, h2load         string
	// about describes the machine, notes what the reader must know.
	about, notes []string
}

// descriptors is how many files a process may have open: 10,000 idle connections and room.
const descriptors = 40_000

func newHost(o options) (*host, error) {
	h := &host{}
	if err := h.divideCPUs(); err != nil {
		return nil, err
	}
	limit, err := proc.RaiseFileLimit(descriptors)
	if err != nil {
		return nil, fmt.Errorf("raising the limit of open files: %w", err)
	}
	if limit < 12_000 {
		h.notes = append(h.notes, fmt.Sprintf("a process may open %d files: too few for the idle scenarios; raise it with ulimit -n", limit))
	}
	if !o.ownLoad {
		h.wrk, h.h2load = h.findTool("wrk", "wrk"), h.findTool("h2load", "nghttp2-client")
	}
	if h.dir, err = os.MkdirTemp("", "gatehouse-bench-"); err != nil {
		return nil, err
	}
	if err = h.writeCertificate(); err == nil {
		err = h.startOrigin()
	}
	if err != nil {
		h.close()
		return nil, err
	}
	h.about = append(h.about, machine(), fmt.Sprintf("the proxy runs on CPU %v, load and origin on %v", h.proxyCPUs, h.loadCPUs))
	if average, err := os.ReadFile("/proc/loadavg"); err == nil {
		var last float64
		if _, err := fmt.Sscan(string(average), &last); err == nil && last > 0.7 {
			h.notes = append(h.notes, fmt.Sprintf("the machine was busy when the run began: load average %.1f", last))
		}
	}
	return h, nil
}

// divideCPUs gives the proxies the first CPU and all else the others.
func (h *host) divideCPUs() error {
	cpus, err := proc.CPUs()
	if err != nil {
		return err
	}
	h.proxyCPUs, h.loadCPUs = cpus[:1], cpus[1:]
	if len(cpus) == 1 {
		h.loadCPUs = cpus
		h.notes = append(h.notes, "one CPU only: proxy, load and origin share it, and only CPU/req means anything")
	}
	runtime.GOMAXPROCS(len(h.loadCPUs))
	return proc.Pin(h.loadCPUs)
}

func (h *host) findTool(name, pkg string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		h.notes = append(h.notes, fmt.Sprintf("%s is not installed, bench's own load takes its place: apt-get install --no-install-recommends %s", name, pkg))
		return ""
	}
	return path
}

// writeCertificate makes an ECDSA P-256 certificate for loopback, good for a day.
func (h *host) writeCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	h.cert, h.key = filepath.Join(h.dir, "cert.pem"), filepath.Join(h.dir, "key.pem")
	return errors.Join(
		os.WriteFile(h.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(h.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

// originCommand is how this program starts itself as the origin: a process of its own, so that its work is neither the load's nor the proxy's.
const originCommand = "origin"

func (h *host) startOrigin() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	h.origin, err = proc.Start(proc.Spec{Path: self, Args: []string{originCommand}, CPUs: h.loadCPUs, Stdout: write,
		Env: []string{fmt.Sprint("GOMAXPROCS=", len(h.loadCPUs)), "GOGC=400"}, Log: filepath.Join(h.dir, "origin.log")})
	_ = write.Close()
	if err != nil {
		return err
	}
	var o origin.Origin
	if err := json.NewDecoder(read).Decode(&o); err != nil {
		return fmt.Errorf("the origin did not start: %w", errors.Join(err, h.origin.Explain()))
	}
	h.http, h.grpc = o.HTTP, o.GRPC
	return nil
}

// serveOrigin is the origin's process. It says its addresses on stdout and runs until it is told to end.
func serveOrigin() error {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	o, err := origin.Start()
	if err != nil {
		return err
	}
	defer o.Close()
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		return err
	}
	<-ended
	return nil
}

// close ends the origin and removes the run's folder.
func (h *host) close() {
	if h.origin != nil {
		h.origin.Stop(time.Second)
	}
	_ = os.RemoveAll(h.dir)
}

// machine describes CPU and kernel in a line.
func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("of an unknown release")
	}
	return fmt.Sprintf("%d x %s, Linux %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)))
}
