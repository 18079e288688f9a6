package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// newAPI is what tests and people drive the control plane by. A body is YAML or JSON; an answer is JSON or a word.
//
//	POST   /resources[?ttl=3s]                 sets a list of resources, each with its "@type", in one push
//	DELETE /resources?type=Cluster&name=a      removes one (name may be given more than once), in one push
//	GET    /streams                            every stream there was: requests, ACKs, NACKs, names, per type
//	POST   /drop, /cut                         ends all streams with UNAVAILABLE; closes all connections
//	POST   /freeze, /thaw                      takes requests and answers nothing, until it is thawed
//	POST   /slow?by=300ms                      keeps every response back for that long
//	POST   /send                               raw: one response as written (frame.go), on the stream that asked for its type
//	POST   /generate, /push                    many resources, and changes of them at a rate (generate.go)
//
// Anything else says hello: the example's upstream.
func newAPI(p *plane, s *streams, c *connections) http.Handler {
	mux := http.NewServeMux()
	on := func(pattern string, do func(*http.Request, []byte) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			var answer any
			if err == nil {
				answer, err = do(r, body)
			}
			reply(w, answer, err)
		})
	}
	say := func(pattern string, do func()) {
		on(pattern, func(*http.Request, []byte) (any, error) { do(); return "done", nil })
	}
	on("POST /resources", func(r *http.Request, body []byte) (any, error) {
		ttl, err := duration(r, "ttl")
		if err != nil {
			return nil, err
		}
		return "done", p.load(string(body), ttl)
	})
	on("DELETE /resources", func(r *http.Request, _ []byte) (any, error) {
		var gone []item
		for _, name := range r.URL.Query()["name"] {
			gone = append(gone, item{url: long(r.FormValue("type")), name: name})
		}
		return "done", p.change(nil, gone)
	})
	on("GET /streams", func(*http.Request, []byte) (any, error) { return s.reports(), nil })
	say("POST /drop", s.dropAll)
	say("POST /cut", c.cut)
	say("POST /freeze", s.freeze)
	say("POST /thaw", s.thaw)
	on("POST /slow", func(r *http.Request, _ []byte) (any, error) {
		by, err := duration(r, "by")
		if by == nil || err != nil {
			return nil, fmt.Errorf("by how much? %w", err)
		}
		s.slow(*by)
		return "done", nil
	})
	on("POST /send", func(_ *http.Request, body []byte) (any, error) {
		f := new(frame)
		if err := json.Unmarshal(body, f); err != nil {
			return nil, err
		}
		return s.post(f)
	})
	on("POST /generate", func(_ *http.Request, body []byte) (any, error) { return generate(p, body) })
	on("POST /push", func(_ *http.Request, body []byte) (any, error) { return push(p, body) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from the upstream that the control plane named: %s %s\n", r.Method, r.URL.Path)
	})
	return mux
}

// reply gives the length, so that the simplest client can read it.
func reply(w http.ResponseWriter, answer any, err error) {
	status, text := http.StatusOK, []byte(nil)
	if err == nil {
		text, err = json.Marshal(answer)
	}
	if err != nil {
		status, text = http.StatusBadRequest, []byte(err.Error())
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // A client that went away is nobody to tell.
}

func duration(r *http.Request, name string) (*time.Duration, error) {
	text := r.FormValue(name)
	if text == "" {
		return nil, nil
	}
	d, err := time.ParseDuration(text)
	return &d, err
}
