// Says what the addon would say about the OpenSSL that this program was linked with.
#include "../../native/openssl_abi.h"

#include <cstdio>

#ifdef VERSION_NUMBER
extern "C" unsigned long OpenSSL_version_num() { return VERSION_NUMBER; }
extern "C" const char* OpenSSL_version(int) { return VERSION_TEXT; }
#endif

int main() { return puts(ztunnel::OpenSslProblem().c_str()) < 0; }
