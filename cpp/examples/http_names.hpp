// By which names a service may be asked, and from which pages. A page anywhere can have its own
// name resolve to 127.0.0.1: the Host header tells. And a page can send a request elsewhere without
// reading the answer: its Origin tells.
#pragma once

#include <httplib.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace http {

inline std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  });
  return text;
}

/// A name or address in lower case, without brackets and last dot; port: -1 where none is named.
struct Host {
  std::string name;
  int port = -1;
};

/// "name", "name:port" or "[address]:port"; none: it is none of them.
inline std::optional<Host> read_host(std::string text) {
  constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
  text = lower(std::move(text));
  Host host;
  std::string rest;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string::npos) return std::nullopt;
    host.name = text.substr(1, end - 1);
    rest = text.substr(end + 1);
    const bool address = host.name.find_first_not_of("0123456789abcdef:.") == std::string::npos;
    if (!address || host.name.find(':') == std::string::npos) return std::nullopt;
  } else {
    const std::size_t end = std::min(text.find(':'), text.size());
    host.name = text.substr(0, end);
    rest = text.substr(end);
    if (host.name.ends_with('.')) host.name.pop_back();
    const bool dotted = host.name.starts_with('.') || host.name.ends_with('.') ||
                        host.name.find("..") != std::string::npos;
    if (host.name.empty() || dotted || host.name.find_first_not_of(letters) != std::string::npos) {
      return std::nullopt;
    }
  }
  if (rest.empty()) return host;
  const std::string digits = rest.substr(1);
  if (rest[0] != ':' || digits.empty() || digits.size() > 5 ||
      digits.find_first_not_of("0123456789") != std::string::npos || std::stoi(digits) > 65535) {
    return std::nullopt;
  }
  host.port = std::stoi(digits);
  return host;
}

/// Whether what came in at this address came from the same machine.
inline bool is_loopback(std::string_view address) {
  return address.starts_with("127.") || address == "::1" || address.starts_with("::ffff:127.");
}

/// Whether the request's Origin is this service's own, or of an allowed name. Programs send none.
inline bool has_own_origin(const httplib::Request& request, const std::optional<Host>& host,
                           const std::set<std::string>& allowed) {
  const std::size_t count = request.get_header_value_count("Origin");
  if (count == 0) return true;
  const std::string origin = lower(request.get_header_value("Origin"));
  const int usual = origin.starts_with("http://") ? 80 : origin.starts_with("https://") ? 443 : 0;
  if (count > 1 || usual == 0) return false;
  const std::optional<Host> page = read_host(origin.substr(origin.find("://") + 3));
  if (!page) return false;
  if (allowed.contains(page->name)) return true;
  const auto port_of = [usual](const Host& one) { return one.port < 0 ? usual : one.port; };
  return host && page->name == host->name && port_of(*page) == port_of(*host);
}

/// Whether a body is declared as JSON, which no form of a page can do.
inline bool is_json(const httplib::Request& request) {
  const std::string type = lower(request.get_header_value("Content-Type"));
  const std::size_t end = std::min(type.find(';'), type.size());
  std::string kind = type.substr(0, end);
  while (kind.ends_with(' ') || kind.ends_with('\t')) kind.pop_back();
  std::string more = type.substr(end);
  std::erase_if(more, [](char c) { return c == ' ' || c == '"' || c == '\t'; });
  return kind == "application/json" && (more.empty() || more == ";" || more == ";charset=utf-8");
}

/// What is wrong with the request's names: a status and a message; status 0: nothing.
struct Refusal {
  int status = 0;
  std::string message;
};

inline Refusal check_names(const httplib::Request& request, const std::set<std::string>& allowed) {
  const bool once = request.get_header_value_count("Host") == 1;
  const auto host = once ? read_host(request.get_header_value("Host")) : std::nullopt;
  if (!allowed.empty() || is_loopback(request.local_addr)) {
    if (!host) return {400, "the Host header is absent, doubled or no name; expected one name"};
    const bool local = host->name == "localhost" || host->name == "127.0.0.1" ||
                       host->name == "::1" || host->name == request.local_addr;
    if (!local && !allowed.contains(host->name)) {
      return {403, "this service is not called " + host->name +
                       "; expected localhost, 127.0.0.1, [::1] or a name given with "
                       "--allowed-host"};
    }
  }
  if (request.method != "GET" && request.method != "HEAD" &&
      !has_own_origin(request, host, allowed)) {
    return {403,
            "the request comes from a page that is not of this service; its name may be given "
            "with --allowed-host"};
  }
  return {};
}

}  // namespace http
