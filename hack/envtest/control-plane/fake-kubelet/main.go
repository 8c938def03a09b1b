// The fake kubelet serves logs, exec and port-forward of pods for tests, with the kubelet's own streaming code.
//
// It runs commands as processes of this machine and forwards ports to loopback. It prints its port, and ends with its
// standard input. A pod whose name begins with "cut" loses its connections.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	remotecommandconsts "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/kubelet/pkg/cri/streaming/portforward"
	streaming "k8s.io/kubelet/pkg/cri/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	idle     = time.Hour
	creation = 30 * time.Second
	tick     = 50 * time.Millisecond
)

type pods struct{}

func (pods) ExecInContainer(ctx context.Context, name string, _ types.UID, _ string, command []string,
	in io.Reader, out, err io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	process := exec.CommandContext(ctx, command[0], command[1:]...)
	process.Stdout, process.Stderr = out, err
	if in != nil {
		pipe, failure := process.StdinPipe()
		if failure != nil {
			return failure
		}
		go func() {
			io.Copy(pipe, in)
			pipe.Close()
		}()
	}
	failure := process.Run()
	var exit *exec.ExitError
	if errors.As(failure, &exit) {
		return utilexec.CodeExitError{Err: failure, Code: exit.ExitCode()}
	}
	return failure
}

func (pods) PortForward(_ context.Context, name string, _ types.UID, port int32, stream io.ReadWriteCloser) error {
	peer, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer peer.Close()
	done := make(chan struct{}, 2)
	go func() {
		io.Copy(peer, stream)
		peer.(*net.TCPConn).CloseWrite()
		done <- struct{}{}
	}()
	go func() {
		io.Copy(stream, peer)
		done <- struct{}{}
	}()
	<-done
	return nil
}

// dropped closes the connection of a pod that loses its connections a moment after the request.
func dropped(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(strings.Split(r.URL.Path, "/")[3], "cut") {
		return false
	}
	connection, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		connection.Close()
	}
	return true
}

func logs(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, "one\ntwo\n")
	w.(http.Flusher).Flush()
	if dropped(w, r) || r.URL.Query().Get("follow") != "true" {
		return
	}
	for number := 1; ; number++ {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(tick):
			fmt.Fprintf(w, "tick %d\n", number)
			w.(http.Flusher).Flush()
		}
	}
}

func execute(w http.ResponseWriter, r *http.Request) {
	if dropped(w, r) {
		return
	}
	options, err := streaming.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod := strings.Split(r.URL.Path, "/")[3]
	streaming.ServeExec(w, r, pods{}, pod, "", "main", r.URL.Query()["command"], options, idle, creation,
		remotecommandconsts.SupportedStreamingProtocols)
}

func forward(w http.ResponseWriter, r *http.Request) {
	if dropped(w, r) {
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod := strings.Split(r.URL.Path, "/")[3]
	portforward.ServePortForward(w, r, pods{}, pod, "", options, idle, creation, portforward.SupportedProtocols)
}

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}
}

func main() {
	http.HandleFunc("/containerLogs/", logs)
	http.HandleFunc("/exec/", execute)
	http.HandleFunc("/portForward/", forward)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate()}})
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	panic(http.Serve(listener, nil))
}
