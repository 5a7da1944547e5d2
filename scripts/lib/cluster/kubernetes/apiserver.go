package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/spf13/cobra"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// outerListener is the descriptor of a listening socket that the API server inherits. It belongs to
// the network namespace outside the cluster's, where the callers are.
const outerListener = 3

// newAPIServerCommand is the kube-apiserver's own command, but for the second socket it serves.
func newAPIServerCommand() *cobra.Command {
	s := options.NewServerRunOptions()
	ctx := genericapiserver.SetupSignalContext()
	command := &cobra.Command{
		Use:          "kube-apiserver",
		SilenceUsage: true,
		Args:         cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := s.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
				return err
			}
			rest.SetDefaultWarningHandler(rest.NoWarnings{})
			completed, err := s.Complete(ctx)
			if err != nil {
				return err
			}
			if errs := completed.Validate(); len(errs) != 0 {
				return utilerrors.NewAggregate(errs)
			}
			serving := completed.SecureServing
			inner := net.JoinHostPort(serving.BindAddress.String(), fmt.Sprint(serving.BindPort))
			if serving.Listener, err = listenTwice(inner); err != nil {
				return err
			}
			return app.Run(ctx, completed)
		},
	}
	command.SetContext(ctx)
	for _, flags := range s.Flags().FlagSets {
		command.Flags().AddFlagSet(flags)
	}
	return command
}

// twoListeners is a listener that accepts from two sockets and has the address of the first.
type twoListeners struct {
	net.Listener
	outer    net.Listener
	accepted chan accepted
	closed   chan struct{}
	close    sync.Once
}

type accepted struct {
	conn net.Conn
	err  error
}

func listenTwice(inner string) (net.Listener, error) {
	file := os.NewFile(outerListener, "outer listener")
	outer, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is no listening socket: %w", outerListener, err)
	}
	file.Close()
	first, err := net.Listen("tcp", inner)
	if err != nil {
		return nil, err
	}
	l := &twoListeners{Listener: first, outer: outer, accepted: make(chan accepted), closed: make(chan struct{})}
	go l.acceptFrom(first)
	go l.acceptFrom(outer)
	return l, nil
}

func (l *twoListeners) acceptFrom(from net.Listener) {
	for {
		conn, err := from.Accept()
		select {
		case l.accepted <- accepted{conn, err}:
		case <-l.closed:
			if conn != nil {
				conn.Close()
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

func (l *twoListeners) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *twoListeners) Close() (err error) {
	l.close.Do(func() {
		close(l.closed)
		err = errors.Join(l.Listener.Close(), l.outer.Close())
	})
	return err
}
