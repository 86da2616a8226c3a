# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
install(TARGETS krait EXPORT KraitTargets FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
set(KRAIT_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/Krait)
install(EXPORT KraitTargets NAMESPACE Krait:: DESTINATION ${KRAIT_CMAKE_DIR})
get_target_property(KRAIT_TYPE krait TYPE)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/KraitConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/KraitConfig.cmake INSTALL_DESTINATION ${KRAIT_CMAKE_DIR})
# While 0.x, a minor version may break.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/KraitConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/KraitConfig.cmake ${PROJECT_BINARY_DIR}/KraitConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/KraitKokkosSources.cmake ${PROJECT_SOURCE_DIR}/cmake/FindNCCL.cmake
        DESTINATION ${KRAIT_CMAKE_DIR})
