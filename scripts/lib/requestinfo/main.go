// What kube-apiserver reads in a request, for the comparison with mykube's reading: a request line of HTTP/1.1 without
// its version on each line of standard input, one line of JSON for each on standard output.
package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"strings"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"
)

type answer struct {
	// Of Go's HTTP server: it answers 400 and no handler sees the request.
	HTTPError string `json:"http_error,omitempty"`
	// Of RequestInfo: the API server answers 500.
	Error string `json:"error,omitempty"`
	// The options of a list cannot be read: the list's handler answers 400.
	BadOptions bool `json:"bad_options,omitempty"`

	Verb        string `json:"verb"`
	Path        string `json:"path"`
	IsResource  bool   `json:"is_resource"`
	Group       string `json:"group"`
	Version     string `json:"version"`
	Namespace   string `json:"namespace"`
	Resource    string `json:"resource"`
	Subresource string `json:"subresource"`
	Name        string `json:"name"`
	// The name as the proxies of pods, services and nodes read it; empty where they refuse it.
	Object string `json:"object"`
	// Verb and name as a release built with Go before 1.17 reads them, where the query could be another one to it: `;` is
	// as good as `&` there, and parameters may be as many as they like (now 10,000; more of them are none).
	Older []string `json:"older,omitempty"`
}

// As kube-apiserver has it: NewRequestInfoResolver in k8s.io/apiserver/pkg/server/config.go.
var factory = request.RequestInfoFactory{
	APIPrefixes:          sets.NewString("api", "apis"),
	GrouplessAPIPrefixes: sets.NewString("api"),
}

func read(line string) answer {
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\r\nHost: localhost\r\n\r\n")))
	if err != nil {
		return answer{HTTPError: err.Error()}
	}
	info, err := factory.NewRequestInfo(req)
	if err != nil {
		return answer{Error: err.Error()}
	}
	older, err := readOlder(req)
	if err != nil {
		return answer{Error: err.Error()}
	}
	options := metainternalversion.ListOptions{}
	bad := metainternalversionscheme.ParameterCodec.DecodeParameters(req.URL.Query(), metav1.SchemeGroupVersion, &options) != nil
	_, object, _, _ := utilnet.SplitSchemeNamePort(info.Name)
	return answer{
		BadOptions: bad, Verb: info.Verb, Path: info.Path, IsResource: info.IsResourceRequest, Group: info.APIGroup,
		Version: info.APIVersion, Namespace: info.Namespace, Resource: info.Resource, Subresource: info.Subresource,
		Name: info.Name, Object: object, Older: older,
	}
}

func readOlder(req *http.Request) ([]string, error) {
	query := req.URL.RawQuery
	if !strings.Contains(query, ";") && strings.Count(query, "&") < 9_999 {
		return nil, nil
	}
	os.Setenv("GODEBUG", "urlmaxqueryparams=0")
	defer os.Unsetenv("GODEBUG")
	older := req.Clone(req.Context())
	older.URL.RawQuery = strings.ReplaceAll(query, ";", "&")
	info, err := factory.NewRequestInfo(older)
	if err != nil {
		return nil, err
	}
	return []string{info.Verb, info.Name}, nil
}

func main() {
	klog.SetOutput(os.Stderr)
	klog.LogToStderr(false)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for lines.Scan() {
		if err := encoder.Encode(read(lines.Text())); err != nil {
			os.Exit(1)
		}
	}
	if lines.Err() != nil {
		os.Exit(1)
	}
}
