# The load generator's image: Locust and what it needs, nothing of the fleet.
#   docker build -f deployments/loadtest.Dockerfile -t REGISTRY/flotilla-loadtest:0.1.0 .
# Without a network: deployments/image/wheels loadtest DIR elsewhere, and --build-context wheels=DIR --network none here.
ARG PYTHON_IMAGE=python:3.11-slim-trixie@sha256:9534e5a8e315485d4061ed659af0fd78a284c015f9b73661b41d6bab25604534

FROM ${PYTHON_IMAGE} AS fetch
COPY deployments/requirements /src/deployments/requirements
COPY deployments/image /src/deployments/image
RUN /src/deployments/image/wheels loadtest /wheels

FROM scratch AS wheels
COPY --from=fetch /wheels /

FROM ${PYTHON_IMAGE} AS build
COPY loadtests /src/loadtests
COPY deployments/requirements /src/deployments/requirements
COPY deployments/image /src/deployments/image
RUN --mount=type=bind,from=wheels,target=/wheels /src/deployments/image/install loadtest /opt/flotilla /wheels

FROM ${PYTHON_IMAGE} AS loadtest
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="flotilla-loadtest" \
      org.opencontainers.image.description="Flotilla's load generator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/flotilla /opt/flotilla
ENV PATH=/opt/flotilla/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/home/flotilla \
    PYTHONUNBUFFERED=1
RUN --mount=type=bind,from=build,source=/src,target=/src \
    /src/deployments/image/finish flotilla-loadtest "${VERSION}" /reports
WORKDIR /home/flotilla
USER 1000:1000
ENTRYPOINT []
CMD ["python", "-m", "loadtests.run", "--help"]
